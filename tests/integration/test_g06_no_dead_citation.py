"""G6: a citation whose chunk is deleted, superseded or no longer permitted is never reported live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import CorpusNotFound, EpochAhead, SnapshotExpired, SnapshotForeign, SnapshotInvalid
from ragver.gate import AsyncGatedStream, Released
from ragver.gate.flow import AsyncValidate
from ragver.index.port import Payload, Point
from ragver.types import ChunkId, Decision, DocumentId, Epoch, Policy
from ragver.validation import facts
from ragver.validator import Question, decide
from tests.support.services import (
    CORPUS,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_acl,
    set_metadata,
)
from tests.support.spine import (
    EXTERNAL,
    chunk,
    collection,
    index_all,
    retrieve,
    second_process,
    sql,
    statuses,
    texts,
    validate,
    watched,
)

pytestmark = pytest.mark.guarantee(6)

STAFF = ["group:staff"]


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, with the document of the story in the ledger alone."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        leave = put("leave", acl=STAFF, chunks=[chunk("You get 30 days.", 1), chunk("They carry over.", 2)])
        other = put("other", acl=STAFF, chunks=[chunk("Bring cake.", 30)])
        await commit(services, CORPUS, leave, other)
        yield services


@dataclass(frozen=True)
class Fate:
    """What happens to a cited document, and what a verdict has to say of its two chunks."""

    operations: list[list[wire.Operation]]
    expected: list[str]
    key: str | None = "leave"
    version: int | None = 1
    superseded_by: int | None = None
    died_epoch: int | None = field(default=None)


FATES = {
    "nothing": Fate([], ["live", "live"]),
    "an edit": Fate(
        [[put("leave", acl=STAFF, chunks=[chunk("You get 28 days.", 1), chunk("They carry over.", 2)])]],
        ["superseded", "live"],
        superseded_by=2,
        died_epoch=2,
    ),
    "emptied": Fate([[put("leave", acl=STAFF, text="")]], ["superseded"] * 2, superseded_by=2, died_epoch=2),
    "deleted": Fate([[delete("leave")]], ["deleted"] * 2, died_epoch=2),
    "deleted and put again": Fate(
        [[delete("leave")], [put("leave", acl=STAFF, chunks=[chunk("You get 30 days.", 1)])]],
        ["superseded"] * 2,
        superseded_by=2,
        died_epoch=2,
    ),
    "deleted and put again at once": Fate(
        [[delete("leave"), put("leave", acl=STAFF, chunks=[chunk("You get 30 days.", 1)])]],
        ["superseded"] * 2,
        superseded_by=2,
        died_epoch=2,
    ),
    "edited, then deleted": Fate(
        [[put("leave", acl=STAFF, chunks=[chunk("They carry over.", 2)])], [delete("leave")]],
        ["deleted"] * 2,
        died_epoch=2,
    ),
    "edited and edited back": Fate(
        [
            [put("leave", acl=STAFF, chunks=[chunk("You get 28 days.", 1)])],
            [put("leave", acl=STAFF, chunks=[chunk("You get 30 days.", 1), chunk("They carry over.", 2)])],
        ],
        ["superseded"] * 2,
        superseded_by=3,
        died_epoch=2,
    ),
    "forbidden": Fate([[set_acl("leave", "user:ada")]], ["forbidden"] * 2, None, None),
    "forbidden, then deleted": Fate([[set_acl("leave", "user:ada")], [delete("leave")]], ["forbidden"] * 2, None, None),
    "put again for others": Fate(
        [[delete("leave")], [put("leave", acl=["user:ada"], chunks=[chunk("Secret.", 1)])]],
        ["forbidden"] * 2,
        None,
        None,
    ),
    "forbidden and allowed again": Fate(
        [[set_acl("leave", "user:ada")], [set_acl("leave", *STAFF)]], ["live"] * 2, version=3
    ),
    "renamed": Fate([[rename("leave", "holiday")]], ["live"] * 2, key="holiday", version=2),
    "renamed and replaced": Fate(
        [[rename("leave", "holiday"), put("leave", acl=STAFF, chunks=[chunk("Elsewhere.", 1)])]],
        ["live"] * 2,
        "holiday",
        2,
    ),
    "described": Fate([[set_metadata("leave", a=1)]], ["live"] * 2, version=2),
    "put unchanged": Fate(
        [[put("leave", acl=STAFF, chunks=[chunk("You get 30 days.", 1), chunk("They carry over.", 2)])]], ["live"] * 2
    ),
}


@pytest.mark.parametrize("index", ["empty and away", "garbled"])
@pytest.mark.parametrize("fate", FATES)
async def test_g06_every_fate_of_a_document(stopped: Services, fate: str, index: str) -> None:
    """Each citation has the status that the ledger's state deserves, whatever has become of the index."""
    told = FATES[fate]
    services, within = watched(stopped)
    if index == "garbled":
        await index_all(stopped)
    token = (await retrieve(services, principals=STAFF, k=2)).snapshot
    other = await second_process(stopped)
    for process in (services, other):
        assert ["live"] * 2 == statuses(await validate(process, token, principals=STAFF))
    for operations in told.operations:
        await commit(services, CORPUS, *operations)
    if index == "garbled":
        await _garble(stopped)
    within.away = index == "empty and away"
    for process in (services, other, await second_process(stopped)):
        answer = await validate(process, token, principals=STAFF)
        assert told.expected == statuses(answer)
        assert (Decision.PASS if set(told.expected) == {"live"} else Decision.REJECT) == answer.verdict
        first = answer.citations[0]
        found = (first.document_key, first.version, first.superseded_by, first.died_epoch)
        assert (told.key, told.version, told.superseded_by, told.died_epoch) == found
        assert (1 + len(told.operations), 1) == (answer.epoch, answer.snapshot_epoch)


async def _garble(services: Services) -> None:
    """Have the index swear that every chunk it holds is alive and for everybody, and others besides."""
    where = await collection(services)
    stored = await services.index.scroll(where, None, 100, with_vectors=True)
    await services.index.delete(where, [point.chunk_id for point in stored])
    alive = Payload(DocumentId(1), Epoch(0), None, Epoch(10**6), ["*"], {})
    points = [Point(point.chunk_id, point.vector, alive) for point in stored if point.vector is not None]
    orphan = Point(ChunkId(10**9), np.array([1, 0, 0, 0], np.float32), alive)
    await services.index.upsert(where, [*points, orphan])


async def test_g06_what_was_not_retrieved_does_not_exist_or_is_misquoted(stopped: Services) -> None:
    """Refs and ids beyond the hits, ids of another corpus, quotes that are not there."""
    await make_corpus(stopped, "elsewhere", embedding=EXTERNAL)
    await commit(stopped, "elsewhere", put("x", chunks=[chunk("Elsewhere.", 1)]))
    foreign = (await retrieve(stopped, corpus="elsewhere")).hits[0].chunk_id
    every = await retrieve(stopped, principals=STAFF)
    assert ["You get 30 days.", "They carry over.", "Bring cake."] == texts(every)
    token = (await retrieve(stopped, principals=STAFF, k=2)).snapshot
    cited: list[tuple[dict[str, Any], str]] = [
        ({"ref": 1}, "live"),
        ({"ref": 1, "quote": "30 days"}, "live"),
        ({"ref": 1, "quote": "28 days"}, "misquoted"),
        ({"ref": 2, "quote": "30 days"}, "misquoted"),
        ({"ref": 0}, "unknown"),
        ({"ref": 3}, "unknown"),
        ({"chunk_id": every.hits[1].chunk_id}, "live"),
        ({"chunk_id": every.hits[2].chunk_id}, "not_retrieved"),
        ({"chunk_id": foreign}, "unknown"),
        ({"chunk_id": "1"}, "unknown"),
        ({"chunk_id": "9999999999999999999"}, "unknown"),
    ]
    for citation, status in cited:
        answer = await validate(stopped, token, scope="cited", citations=[citation], principals=STAFF)
        assert [status] == statuses(answer), citation
    answer = await validate(stopped, token, scope="cited", answer="So [1], and [7] [100999].", principals=STAFF)
    assert ["live", "unknown", "unknown"] == statuses(answer)


POLICIES = [
    ("strict", "make_up", "reject", "reject"),
    ("strict", "edit", "reject", "reject"),
    ("flag", "edit", "flag", "flag"),
    ("flag", "delete", "flag", "flag"),
    ("flag", "forbid", "reject", "reject"),
    ("redact", "edit", "flag", "flag"),
    ("redact", "delete", "flag", "reject"),
    ("redact", "forbid", "flag", "reject"),
]
"""Policy, what happens, and the verdict on what is cited and on the whole context. With the context, the second
chunk of the document counts too: the answer leans on it nobody knows where, so nothing can be cut."""
CHANGES: dict[str, wire.Operation] = {
    "edit": put("leave", acl=STAFF, chunks=[chunk("They carry over.", 2)]),
    "delete": delete("leave"),
    "forbid": set_acl("leave", "user:ada"),
}


@pytest.mark.parametrize(("policy", "change", "of_cited", "of_context"), POLICIES)
async def test_g06_policies_and_scopes(
    stopped: Services, policy: str, change: str, of_cited: str, of_context: str
) -> None:
    """What became of a cited document decides, and with scope `context` what became of an uncited hit too."""
    token = (await retrieve(stopped, principals=STAFF)).snapshot
    text = "You get 30 days [1]. Bring cake [3]."
    ask: dict[str, Any] = {"policy": policy, "answer": text, "principals": STAFF}
    for scope in ("cited", "context"):
        assert "pass" == (await validate(stopped, token, scope=scope, **ask)).verdict
    if change == "make_up":
        ask["answer"] = text.replace("[1]", "[9]")
    else:
        await commit(stopped, CORPUS, CHANGES[change])
    for scope, verdict in (("cited", of_cited), ("context", of_context)):
        answer = await validate(stopped, token, scope=scope, **ask)
        assert verdict == answer.verdict
        left = "Bring cake [3]." if (policy, verdict) == ("redact", "flag") else None
        assert left == (None if answer.answer is None else answer.answer.strip())


async def test_g06_a_hit_that_is_not_cited_matters_only_to_the_context(stopped: Services) -> None:
    token = (await retrieve(stopped, principals=STAFF)).snapshot
    await commit(stopped, CORPUS, delete("other"))
    cited = await validate(stopped, token, scope="cited", answer="You get 30 days [1].", principals=STAFF)
    context = await validate(stopped, token, scope="context", answer="You get 30 days [1].", principals=STAFF)
    assert ("pass", ["live"]) == (cited.verdict, statuses(cited))
    assert ("reject", ["live", "live", "deleted"]) == (context.verdict, statuses(context))


async def test_g06_a_snapshot_that_is_too_old_or_not_of_this_corpus_gets_no_verdict(stopped: Services) -> None:
    """Expired, foreign, set back, forged: an error each, never a pass."""
    token = (await retrieve(stopped, principals=STAFF)).snapshot
    await make_corpus(stopped, "elsewhere", embedding=EXTERNAL)
    with pytest.raises(SnapshotForeign):
        await validate(stopped, token, corpus="elsewhere")
    with pytest.raises(SnapshotInvalid):
        await validate(stopped, token + "A")
    with pytest.raises(CorpusNotFound):
        await validate(stopped, token, corpus="nowhere")
    await commit(stopped, CORPUS, set_metadata("other", a=1))
    later = (await retrieve(stopped)).snapshot
    await sql(stopped, "UPDATE corpus SET horizon = 2 WHERE name = 'handbook'")
    with pytest.raises(SnapshotExpired):
        await validate(stopped, token)
    await sql(stopped, "UPDATE corpus SET horizon = 0, epoch = 1 WHERE name = 'handbook'")
    with pytest.raises(EpochAhead):
        await validate(stopped, later)


async def test_g06_a_corpus_made_again_does_not_take_over_snapshots(stopped: Services) -> None:
    """Deleted and made again under its name, here or by another process: the old tokens are foreign."""
    token = (await retrieve(stopped, principals=STAFF)).snapshot
    other = await second_process(stopped)
    assert ["live"] * 3 == statuses(await validate(other, token, principals=STAFF))
    await stopped.catalog.delete(CORPUS)
    for process in (stopped, other):
        with pytest.raises(CorpusNotFound):
            await validate(process, token, principals=STAFF)
    await make_corpus(stopped, embedding=EXTERNAL)
    await commit(stopped, CORPUS, put("leave", chunks=[chunk("You get 30 days.", 1)]))
    for process in (stopped, other):
        with pytest.raises(SnapshotForeign):
            await validate(process, token, principals=STAFF)


async def test_g06_text_that_retention_has_removed_cannot_be_quoted(stopped: Services) -> None:
    """A dead chunk whose text is gone is still known, by its tombstone."""
    token = (await retrieve(stopped, principals=STAFF)).snapshot
    await commit(stopped, CORPUS, delete("leave"))
    await sql(stopped, "UPDATE chunk SET text = NULL WHERE died_epoch IS NOT NULL")
    other = await second_process(stopped)
    ask: dict[str, Any] = {"scope": "cited", "principals": STAFF}
    answer = await validate(other, token, citations=[{"ref": 1, "quote": "30 days"}], **ask)
    assert ["deleted"] == statuses(answer)


# ── in a stream ─────────────────────────────────────────────────────────────────────────────────────────────

CLAIMS = ["Bring cake [3]. ", "You get 30 days [1]. ", "They carry over [2]. ", "Bring cake [3]. ", "That is all."]
DYING: dict[str, list[wire.Operation]] = {
    "deleted": [delete("leave")],
    "edited": [put("leave", acl=STAFF, chunks=[chunk("You get 28 days.", 1)])],
    "closed to the reader": [set_acl("leave", "group:board")],
}


async def streamed(services: Services, validate: AsyncValidate, policy: Policy, dying: list[wire.Operation]) -> str:
    """What a gate lets out of an answer when the page that it cites dies after the first piece."""
    found = await retrieve(services, principals=STAFF)

    async def model() -> AsyncIterator[str]:
        yield CLAIMS[0] + CLAIMS[1][:1]  # the first claim is closed when the second begins
        await shown.wait()
        yield "".join(CLAIMS)[len(CLAIMS[0]) + 1 :]

    shown = asyncio.Event()
    released = ""
    async for event in AsyncGatedStream(validate, found.snapshot, model(), policy=policy, principals=STAFF).events():
        if isinstance(event, Released):
            released += event
        if not shown.is_set():
            await commit(services, CORPUS, *dying)
            shown.set()
    return released


@pytest.mark.parametrize("dying", DYING.values(), ids=DYING)
@pytest.mark.parametrize("policy", [Policy.STRICT, Policy.REDACT])
async def test_g06_a_gate_lets_no_claim_out_whose_source_died_while_it_was_written(
    stopped: Services, policy: Policy, dying: list[wire.Operation]
) -> None:
    """The answer ends there, or goes on without the claim, as the policy says."""

    async def validate(request: wire.ValidateRequest) -> wire.ValidateResponse:
        return await stopped.validation.validate(CORPUS, request)

    released = await streamed(stopped, validate, policy, dying)
    left = CLAIMS if policy is Policy.REDACT else CLAIMS[:1]
    assert "".join(claim for claim in left if "[1]" not in claim and "[2]" not in claim).strip() == released


async def test_g06_anomaly_a_gate_that_believes_the_retrieval_lets_dead_claims_out(stopped: Services) -> None:
    """What was true of the hits when they were retrieved says nothing of now."""
    found = await retrieve(stopped, principals=STAFF)
    hits = [ChunkId(int(hit.chunk_id)) for hit in found.hits]
    known = await (await stopped.views.get(CORPUS)).records(hits)
    then = {chunk_id: facts(record) for chunk_id, record in known.items()}

    async def validate(request: wire.ValidateRequest) -> wire.ValidateResponse:
        verdict = decide(Question.of(request, hits), then)
        answer = await stopped.validation.validate(CORPUS, request)
        return answer.model_copy(update={"verdict": verdict.decision, "citations": verdict.citations})

    assert "".join(CLAIMS) == await streamed(stopped, validate, Policy.STRICT, DYING["deleted"])
