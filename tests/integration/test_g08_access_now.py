"""G8: a reader never gets text that today's access list denies, also not through an old snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.ledger.chunks import ChunkRecord
from ragver.retrieval import _Reading
from ragver.types import ChunkId
from tests.support.answers import recorded
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put, set_acl
from tests.support.spine import EXTERNAL, chunk, index_all, retrieve, second_process, statuses, texts, validate, watched

pytestmark = pytest.mark.guarantee(8)

HR, ADA = ["group:hr"], ["user:ada"]
INDEXED = pytest.mark.parametrize("indexed", ["never", "before", "after"])
"""Whether an indexer worked before the change of access, after it too, or not at all."""


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, with an empty corpus."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        yield services


async def _read(services: Services, epoch: int | None, principals: list[str]) -> list[str]:
    """What a reader gets, the same from a process that knows the corpus and from one that does not."""
    found = texts(await retrieve(services, epoch=epoch, principals=principals))
    assert found == texts(await retrieve(await second_process(services), epoch=epoch, principals=principals))
    return found


@INDEXED
async def test_g08_what_is_denied_now_is_denied_at_once_and_at_every_epoch(stopped: Services, indexed: str) -> None:
    """Living and dead chunks of the document, strong and at the snapshot that had shown them."""
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 1), chunk("a2", 2)]), put("b", chunks=[chunk("b1", 3)]))
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a2", 2)]))
    if indexed != "never":
        await index_all(stopped)
    old = await retrieve(stopped, epoch=1)
    assert ["a1", "a2", "b1"] == texts(old)
    await commit(stopped, CORPUS, set_acl("a", *HR))
    if indexed == "after":
        await index_all(stopped)
    assert ["b1"] == await _read(stopped, None, [])
    assert ["b1"] == await _read(stopped, 1, [])
    assert ["b1"] == texts(await retrieve(stopped, snapshot=old.snapshot))
    assert ["a2", "b1"] == await _read(stopped, None, HR)
    assert ["a1", "a2", "b1"] == await _read(stopped, 1, [*ADA, *HR])


@INDEXED
async def test_g08_what_is_allowed_now_is_shown_at_once_and_at_every_epoch(stopped: Services, indexed: str) -> None:
    """Labels that were given since hold for old snapshots too, for dead chunks as for living ones."""
    await commit(stopped, CORPUS, put("a", acl=HR, chunks=[chunk("a1", 1), chunk("a2", 2)]))
    await commit(stopped, CORPUS, put("a", acl=HR, chunks=[chunk("a2", 2)]))
    if indexed != "never":
        await index_all(stopped)
    assert [] == await _read(stopped, None, ADA)
    await commit(stopped, CORPUS, set_acl("a", *ADA))
    if indexed == "after":
        await index_all(stopped)
    assert ["a2"] == await _read(stopped, None, ADA)
    assert ["a1", "a2"] == await _read(stopped, 1, ADA)
    assert [] == await _read(stopped, 1, HR)


@INDEXED
@pytest.mark.parametrize("now", ["allowed", "denied"])
async def test_g08_a_document_that_comes_back_rules_over_its_past(stopped: Services, indexed: str, now: str) -> None:
    """Deleted and put again with other labels: these are the document's labels of today."""
    before, after = (HR, ADA) if now == "allowed" else (ADA, HR)
    await commit(stopped, CORPUS, put("a", acl=before, chunks=[chunk("a1", 1)]))
    await commit(stopped, CORPUS, delete("a"))
    if indexed != "never":
        await index_all(stopped)
    assert ([] if now == "allowed" else ["a1"]) == await _read(stopped, 1, ADA)
    await commit(stopped, CORPUS, put("a", acl=after, chunks=[chunk("a3", 3)]))
    if indexed == "after":
        await index_all(stopped)
    assert (["a1"] if now == "allowed" else []) == await _read(stopped, 1, ADA)
    assert (["a3"] if now == "allowed" else []) == await _read(stopped, None, ADA)


@INDEXED
async def test_g08_labels_given_and_then_death(stopped: Services, indexed: str) -> None:
    """A chunk that was opened and then died is open at the epochs that it lived in, applied in one go or two."""
    await commit(stopped, CORPUS, put("a", acl=HR, chunks=[chunk("a1", 1)]))
    if indexed != "never":
        await index_all(stopped)
    await commit(stopped, CORPUS, set_acl("a", *ADA))
    await commit(stopped, CORPUS, delete("a"))
    if indexed == "after":
        await index_all(stopped)
    assert [["a1"], ["a1"], []] == [await _read(stopped, epoch, ADA) for epoch in (1, 2, 3)]


async def test_g08_a_verdict_tells_the_forbidden_nothing(stopped: Services) -> None:
    """No key, no version, no epoch, no word of the detail: a reader that may not see the document learns nothing."""
    await commit(stopped, CORPUS, put("secret-plan", chunks=[chunk("The plan is on.", 1)]))
    token = (await retrieve(stopped)).snapshot
    await commit(stopped, CORPUS, set_acl("secret-plan", *HR))
    changes: list[list[wire.Operation]] = [
        [],
        [put("secret-plan", acl=HR, chunks=[chunk("The plan is off.", 1)])],
        [delete("secret-plan")],
    ]
    seen = set()
    for operations in changes:
        if operations:
            await commit(stopped, CORPUS, *operations)
        for quote in ({}, {"quote": "The plan is on."}, {"quote": "nothing"}):
            answer = await validate(stopped, token, scope="cited", citations=[{"ref": 1, **quote}])
            assert (["forbidden"], "reject") == (statuses(answer), answer.verdict)
            seen.add(answer.citations[0].model_dump_json())
    assert 1 == len(seen)
    assert "secret" not in seen.pop()


async def test_g08_principals_of_the_verdict_count_not_those_of_the_retrieval(stopped: Services) -> None:
    await commit(stopped, CORPUS, put("a", acl=HR, chunks=[chunk("a1", 1)]))
    token = (await retrieve(stopped, principals=HR)).snapshot
    assert ["live"] == statuses(await validate(stopped, token, principals=HR))
    assert ["forbidden"] == statuses(await validate(stopped, token, principals=ADA))
    assert ["forbidden"] == statuses(await validate(stopped, token))


@INDEXED
async def test_g08_no_principals_is_everybody_and_nobody_else(stopped: Services, indexed: str) -> None:
    """A reader without labels sees what `*` may see; a reader with labels sees that as well."""
    await commit(
        stopped,
        CORPUS,
        put("open", chunks=[chunk("open", 1)]),
        put("both", acl=["*", *HR], chunks=[chunk("both", 2)]),
        put("closed", acl=HR, chunks=[chunk("closed", 3)]),
    )
    if indexed != "never":
        await index_all(stopped)
    assert ["open", "both"] == await _read(stopped, None, [])
    assert ["open", "both"] == await _read(stopped, None, ADA)
    assert ["open", "both", "closed"] == await _read(stopped, None, HR)
    assert ["open", "both"] == await _read(stopped, None, ["*", "group:h", "GROUP:HR"])


async def test_g08_a_denial_in_mid_read_is_honoured(stopped: Services) -> None:
    """Access is looked at last of all, when the text is fetched."""
    services, index = watched(await second_process(stopped))
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 1)]), put("b", chunks=[chunk("b1", 2)]))
    await index_all(stopped)

    async def deny() -> None:
        await commit(stopped, CORPUS, set_acl("a", *HR))

    index.after_search = deny
    assert ["b1"] == texts(await retrieve(services))


async def test_g08_believing_the_index_shows_what_is_denied(stopped: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The anomaly: the same old snapshot, with the ledger's labels not looked at."""
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 1)]), put("b", chunks=[chunk("b1", 2)]))
    services, index = watched(stopped)
    await index_all(stopped)

    async def deny() -> None:
        await commit(stopped, CORPUS, set_acl("a", *HR))

    def believed(_: _Reading, record: ChunkRecord | None, __: ChunkId) -> ChunkRecord | None:
        return record

    index.after_search = deny
    with monkeypatch.context() as without:
        without.setattr(_Reading, "_allowed", believed)
        assert ["a1", "b1"] == texts(await retrieve(services, epoch=1))
    assert ["b1"] == texts(await retrieve(services, epoch=1))


async def test_g08_a_stored_answer_is_served_to_whom_may_read_it_now(stopped: Services) -> None:
    """Whoever it was written for: the labels that count are those of the reader who would be served."""
    await commit(stopped, CORPUS, put("a", acl=HR, chunks=[chunk("a1", 1)]))
    await recorded(stopped, "So [1].", principals=HR, answer_id="one")

    async def served(*principals: str) -> list[str]:
        told = await (await second_process(stopped)).answers.revalidate(CORPUS, "one", principals)
        return [told.verdict.value, *(one.status.value for one in told.citations)]

    assert ["pass", "live"] == await served(*HR)
    assert ["reject", "forbidden"] == await served(*ADA)
    await commit(stopped, CORPUS, set_acl("a", *ADA))
    assert ["reject", "forbidden"] == await served(*HR)
    assert ["pass", "live"] == await served(*ADA)
