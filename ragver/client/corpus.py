"""A handle on one corpus."""

from __future__ import annotations

from dataclasses import dataclass

from ragver.client.client import AsyncClient
from ragver.client.handles import on_corpus


@dataclass(frozen=True, slots=True)
class AsyncCorpus:
    """One corpus of a client: the client's methods, without the name of the corpus."""

    client: AsyncClient
    name: str

    def __repr__(self) -> str:
        return f"{self.client!r}[{self.name!r}]"

    describe = on_corpus(AsyncClient.corpus)

    begin_generation = on_corpus(AsyncClient.begin_generation)
    generations = on_corpus(AsyncClient.generations)
    generation = on_corpus(AsyncClient.generation)
    cut_over = on_corpus(AsyncClient.cut_over)
    retire_generation = on_corpus(AsyncClient.retire_generation)

    commit = on_corpus(AsyncClient.commit)
    commits = on_corpus(AsyncClient.commits)
    each_commit = on_corpus(AsyncClient.each_commit)
    follow = on_corpus(AsyncClient.follow)

    put = on_corpus(AsyncClient.put_document)
    delete = on_corpus(AsyncClient.delete_document)
    delete_many = on_corpus(AsyncClient.delete_documents)
    document = on_corpus(AsyncClient.document)
    documents = on_corpus(AsyncClient.documents)
    each_document = on_corpus(AsyncClient.each_document)
    versions = on_corpus(AsyncClient.versions)

    retrieve = on_corpus(AsyncClient.retrieve)
    validate = on_corpus(AsyncClient.validate)
    gate = on_corpus(AsyncClient.gate)

    answer = on_corpus(AsyncClient.answer)
    revalidate = on_corpus(AsyncClient.revalidate)
    revalidate_many = on_corpus(AsyncClient.revalidate_many)
    recalls = on_corpus(AsyncClient.recalls)
    each_recall = on_corpus(AsyncClient.each_recall)
    follow_recalls = on_corpus(AsyncClient.follow_recalls)

    add_webhook = on_corpus(AsyncClient.add_webhook)
    webhooks = on_corpus(AsyncClient.webhooks)
    delete_webhook = on_corpus(AsyncClient.delete_webhook)
    dead_letters = on_corpus(AsyncClient.dead_letters)
    redeliver = on_corpus(AsyncClient.redeliver)

    explain = on_corpus(AsyncClient.explain)
    verify_log = on_corpus(AsyncClient.verify_log)

    reconcile = on_corpus(AsyncClient.reconcile)
    reconciliation = on_corpus(AsyncClient.reconciliation)
    reconciliations = on_corpus(AsyncClient.reconciliations)

    pin = on_corpus(AsyncClient.pin)
    pins = on_corpus(AsyncClient.pins)
    unpin = on_corpus(AsyncClient.unpin)
    collect = on_corpus(AsyncClient.collect)

    erase = on_corpus(AsyncClient.erase)
    erasure = on_corpus(AsyncClient.erasure)
    erasures = on_corpus(AsyncClient.erasures)
    check_erasure = on_corpus(AsyncClient.check_erasure)
