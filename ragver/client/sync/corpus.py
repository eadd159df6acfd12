# Derived from ragver/client/corpus.py by `python -m ragver.client.derive`: change that one, not this.
"""A handle on one corpus."""

from __future__ import annotations

from dataclasses import dataclass

from ragver.client.handles import on_corpus
from ragver.client.sync.client import Client


@dataclass(frozen=True, slots=True)
class Corpus:
    """One corpus of a client: the client's methods, without the name of the corpus."""

    client: Client
    name: str

    def __repr__(self) -> str:
        return f"{self.client!r}[{self.name!r}]"

    describe = on_corpus(Client.corpus)

    begin_generation = on_corpus(Client.begin_generation)
    generations = on_corpus(Client.generations)
    generation = on_corpus(Client.generation)
    cut_over = on_corpus(Client.cut_over)
    retire_generation = on_corpus(Client.retire_generation)

    commit = on_corpus(Client.commit)
    commits = on_corpus(Client.commits)
    each_commit = on_corpus(Client.each_commit)
    follow = on_corpus(Client.follow)

    put = on_corpus(Client.put_document)
    delete = on_corpus(Client.delete_document)
    delete_many = on_corpus(Client.delete_documents)
    document = on_corpus(Client.document)
    documents = on_corpus(Client.documents)
    each_document = on_corpus(Client.each_document)
    versions = on_corpus(Client.versions)

    retrieve = on_corpus(Client.retrieve)
    validate = on_corpus(Client.validate)
    gate = on_corpus(Client.gate)

    answer = on_corpus(Client.answer)
    revalidate = on_corpus(Client.revalidate)
    revalidate_many = on_corpus(Client.revalidate_many)
    recalls = on_corpus(Client.recalls)
    each_recall = on_corpus(Client.each_recall)
    follow_recalls = on_corpus(Client.follow_recalls)

    add_webhook = on_corpus(Client.add_webhook)
    webhooks = on_corpus(Client.webhooks)
    delete_webhook = on_corpus(Client.delete_webhook)
    dead_letters = on_corpus(Client.dead_letters)
    redeliver = on_corpus(Client.redeliver)

    explain = on_corpus(Client.explain)
    verify_log = on_corpus(Client.verify_log)

    reconcile = on_corpus(Client.reconcile)
    reconciliation = on_corpus(Client.reconciliation)
    reconciliations = on_corpus(Client.reconciliations)

    pin = on_corpus(Client.pin)
    pins = on_corpus(Client.pins)
    unpin = on_corpus(Client.unpin)
    collect = on_corpus(Client.collect)

    erase = on_corpus(Client.erase)
    erasure = on_corpus(Client.erasure)
    erasures = on_corpus(Client.erasures)
    check_erasure = on_corpus(Client.check_erasure)
