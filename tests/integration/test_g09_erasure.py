"""G9: after an erasure is complete, text, metadata and vectors are in neither store, at any epoch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import DocumentErased, DocumentNotFound, ErasureNotFound, IdempotencyKeyReused
from ragver.receipts import ReceiptSigner, genuine
from tests.support.erasure import completed, erase, five_commits_indexed, points, states
from tests.support.five_commits import ALIVE, at_every_epoch
from tests.support.ledger import query
from tests.support.services import CORPUS, SECRET, commit, put, rename, set_metadata
from tests.support.spine import chunk, index_all, retrieve, second_process, sql, statuses, texts, validate

pytestmark = pytest.mark.guarantee(9)


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    async with five_commits_indexed(database_url, tmp_path / "data") as services:
        yield services


# ── what goes ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_g09_every_version_goes_from_every_epoch(stopped: Services) -> None:
    """The document lived twice and died; erased, no epoch shows it any more, and all else is as it was."""
    before = await at_every_epoch(stopped)
    assert ALIVE == before
    receipt = await completed(stopped, "a")

    assert ("complete", 6, 1, 2, 3) == (
        receipt.state,
        receipt.epoch,
        receipt.documents,
        receipt.versions,
        receipt.chunks,
    )
    assert ["erased"] * 3 == states(receipt)
    gone = {"a1", "a2", "a3"}
    assert {epoch: [text for text in alive if text not in gone] for epoch, alive in before.items()} == {
        epoch: texts(await retrieve(stopped, epoch=epoch)) for epoch in before
    }
    for epoch in (1, 2, 4):
        with pytest.raises(DocumentErased):
            await stopped.catalog.document(CORPUS, "a", epoch)
        assert "a" not in [one.key for one in (await stopped.catalog.documents(CORPUS, "", epoch, None, 10)).documents]
    with pytest.raises(DocumentNotFound):
        await stopped.catalog.document(CORPUS, "a", None)
    versions = (await stopped.catalog.versions(CORPUS, "a")).versions
    assert {("erased", None, None)} == {(version.cause, version.title, version.uri) for version in versions}
    assert 3 == len(await points(stopped))


async def test_g09_living_documents_die_and_renames_are_followed(stopped: Services) -> None:
    """«c» was renamed to «b», whose name an earlier document had: erasing «c» takes all of its life, and no other."""
    receipt = await completed(stopped, "c")
    assert (1, 2, 1, ["c"]) == (receipt.documents, receipt.versions, receipt.chunks, receipt.keys)
    assert {1: ["a1", "a2", "b1"], 3: ["a1", "a3"], 5: ["d1"]} == {
        epoch: texts(await retrieve(stopped, epoch=epoch)) for epoch in (1, 3, 5)
    }
    assert ["d1"] == texts(await retrieve(stopped))
    entry = (await stopped.catalog.commits(CORPUS, 5, 10))[0]
    assert ("dpo", "asked for") == (entry.actor, entry.reason)
    assert [("b", "deleted", 1)] == [(one.key, one.status, one.chunks_removed) for one in entry.documents]


async def test_g09_erasing_a_key_takes_every_document_that_had_it(stopped: Services) -> None:
    """Two documents were «b», one after the other."""
    receipt = await completed(stopped, "b")
    assert (2, 3, 2) == (receipt.documents, receipt.versions, receipt.chunks)
    assert ["a1", "a2"] == texts(await retrieve(stopped, epoch=1))


async def test_g09_descriptions_go_too(stopped: Services) -> None:
    """Titles, addresses and metadata of all versions, dead and alive."""
    await commit(
        stopped, CORPUS, put("d", chunks=[chunk("d1", 5)], title="secret", uri="secret", metadata={"x": "secret"})
    )
    await commit(stopped, CORPUS, set_metadata("d", team="secret"))
    await index_all(stopped)
    await completed(stopped, "d")
    assert not await secrets(stopped)


async def secrets(services: Services, word: str = "secret") -> list[str]:
    """The tables that hold a word anywhere."""
    tables = ["chunk", "document", "document_version", "commit_log", "erasure", "embedding"]
    return [
        table
        for table in tables
        if await query(services.database.url, f"SELECT 1 FROM {table} t WHERE t::text LIKE '%{word}%'")
    ]


async def test_g09_keys_go_too_when_asked_and_the_chain_still_holds(stopped: Services) -> None:
    """Pseudonyms take their place in versions and in the log; the log says which rows were redacted, by what."""
    await commit(
        stopped, CORPUS, put("secret", chunks=[chunk("s", 1)]), reason="for secret", idempotency_key="secret-1"
    )
    await commit(stopped, CORPUS, rename("secret", "secret/two"))
    await commit(stopped, CORPUS, put("other", chunks=[chunk("o", 1)]))
    await index_all(stopped)
    receipt = await completed(stopped, "secret", keys_too=True)

    assert not await secrets(stopped)
    assert [f"erased-{receipt.id}-1"] == receipt.keys
    log = await stopped.catalog.verify_log(CORPUS, None)
    assert log.intact
    assert [(6, receipt.id), (7, receipt.id)] == [(one.epoch, one.erasure_id) for one in log.redacted]
    assert ["other"] == [one.key for one in (await stopped.catalog.commits(CORPUS, 7, 1))[0].documents]
    with pytest.raises(DocumentNotFound):
        await stopped.catalog.versions(CORPUS, "secret")
    # Twice, since one erasure redacts the other's commit as well.
    again = await completed(stopped, receipt.keys[0])
    assert "complete" == again.state
    assert (await stopped.catalog.verify_log(CORPUS, None)).intact


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE commit_log SET reason = 'forged' WHERE epoch = 1",
        "UPDATE commit_log SET summary = '[]' WHERE epoch = 2",
        "UPDATE erasure SET redactions = '[]'",
        "UPDATE erasure SET document_ids = '{}'",
    ],
)
async def test_g09_what_an_erasure_left_of_a_row_cannot_be_changed(stopped: Services, tampering: str) -> None:
    """The digest of what was there proves nothing about what is there now; the erasure's own commit does."""
    await erase(stopped, "a")
    assert (await stopped.catalog.verify_log(CORPUS, None)).intact
    await sql(stopped, tampering)
    assert not (await stopped.catalog.verify_log(CORPUS, None)).intact


async def test_g09_a_repeated_put_does_not_bring_the_text_back(stopped: Services) -> None:
    """A client that never got its answer repeats a put of what was erased meanwhile: refused, not applied anew."""
    operation = put("late", chunks=[chunk("late text", 1)])
    await commit(stopped, CORPUS, operation, idempotency_key="once")
    await erase(stopped, "late")
    with pytest.raises(IdempotencyKeyReused, match="erased since"):
        await commit(stopped, CORPUS, operation, idempotency_key="once")
    assert "late text" not in texts(await retrieve(stopped))


async def test_g09_the_key_can_be_used_again(stopped: Services) -> None:
    """What comes under it afterwards is no business of the erasure, nor of its verification."""
    receipt = await completed(stopped, "a")
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 1)], title="new", metadata={"team": "hr"}))
    await index_all(stopped)
    assert "a1" in texts(await retrieve(stopped))
    assert (await stopped.erasures.check(CORPUS, int(receipt.id))).erased
    await completed(stopped, "a")
    assert "a1" not in texts(await retrieve(stopped))


async def test_g09_pins_do_not_hold_it_back(stopped: Services) -> None:
    token = (await retrieve(stopped, epoch=2)).snapshot
    await stopped.pins.add(CORPUS, wire.PinRequest(snapshot=token, ttl_s=60))
    assert "complete" == (await completed(stopped, "a")).state
    assert ["b1"] == texts(await retrieve(stopped, snapshot=token))


async def test_g09_unknown_keys_erase_nothing(stopped: Services) -> None:
    with pytest.raises(DocumentNotFound, match="'never'"):
        await erase(stopped, "a", "never")
    assert ALIVE == await at_every_epoch(stopped)
    assert 5 == (await stopped.catalog.corpus(CORPUS)).head
    with pytest.raises(ErasureNotFound):
        await stopped.erasures.get(CORPUS, 1)


# ── what is told of it ──────────────────────────────────────────────────────────────────────────────────────


async def test_g06_citations_of_it_are_erased_also_those_that_were_dead_before(stopped: Services) -> None:
    """In the process that erased and in another, with whatever they had in memory."""
    other = await second_process(stopped)
    token = (await retrieve(stopped, epoch=2)).snapshot
    assert ["deleted", "deleted", "deleted"] == statuses(await validate(other, token))
    await erase(stopped, "a")
    for services in (stopped, other):
        checked = await validate(services, token)
        assert ["erased", "deleted", "erased"] == statuses(checked)
        assert "reject" == (await validate(services, token, policy="flag")).verdict


async def test_g09_tails_and_caches_of_every_process_let_go(stopped: Services) -> None:
    """Before the index is done: what the overlays and views held of it is gone with the next read."""
    await commit(stopped, CORPUS, put("e", chunks=[chunk("e1", 0)]))
    other = await second_process(stopped)
    for services in (stopped, other):
        assert "e1" in texts(await retrieve(services))
    await erase(stopped, "e")
    for services in (stopped, other):
        assert "e1" not in texts(await retrieve(services))
        assert "e1" not in texts(await retrieve(services, epoch=6))


# ── the receipt ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_g09_the_receipt_is_signed_and_no_field_can_be_changed(stopped: Services) -> None:
    receipt = await completed(stopped, "a")
    key = stopped.erasures.key
    assert genuine(receipt, key.public_key)
    assert (key.key_id, key.public_key, key.ledger_id) == (receipt.key_id, receipt.public_key, receipt.ledger_id)
    sent = wire.ErasureReceipt.model_validate_json(receipt.model_dump_json())
    assert genuine(sent, key.public_key)
    for field, value in {"epoch": 5, "state": "pending", "keys": ["b"], "completed_at": None, "stores": []}.items():
        assert not genuine(receipt.model_copy(update={field: value}), key.public_key), field
    stranger = ReceiptSigner("another secret", UUID(key.ledger_id))
    assert not genuine(receipt, stranger.public.public_key)
    forged = stranger.signed(**receipt.model_dump(exclude={"signature", "key_id", "public_key", "ledger_id"}))
    assert genuine(forged, forged.public_key)
    assert not genuine(forged, key.public_key)
    assert not genuine(receipt, "no key")
    again = ReceiptSigner(SECRET, UUID(key.ledger_id))
    assert key == again.public


async def test_g09_the_receipt_says_what_it_cannot_speak_for(stopped: Services) -> None:
    plain, whole = await completed(stopped, "a"), await completed(stopped, "d", keys_too=True)
    for receipt in (plain, whole):
        gaps = " ".join(gap.what for gap in receipt.not_covered)
        assert all(named in gaps for named in ("backups", "PostgreSQL's own files", "index's own files"))
        assert all(gap.close_by for gap in receipt.not_covered)
    assert 1 == len(plain.not_covered) - len(whole.not_covered)
    assert [whole.id, plain.id] == [receipt.id for receipt in await stopped.erasures.all(CORPUS)]
