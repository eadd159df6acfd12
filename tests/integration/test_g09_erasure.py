"""G9: after an erasure is complete, text, metadata and vectors are in neither store, at any epoch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import models

from ragver import wire
from ragver.absence import look
from ragver.bootstrap import Services
from ragver.collection import collection_of
from ragver.errors import DocumentErased, DocumentNotFound, ErasureNotFound, IdempotencyKeyReused, IndexUnavailable
from ragver.index.port import Collection
from ragver.indexer import Indexer
from ragver.ledger import chunks, generations
from ragver.receipts import ReceiptSigner, genuine
from ragver.testing.index_suite import a_collection
from ragver.types import ChunkId, Epoch
from tests.support.five_commits import ALIVE, at_every_epoch, history, index_all_of_lost
from tests.support.generations import migrated
from tests.support.ledger import all_points, query
from tests.support.qdrant_engines import LOCAL_WARNING, local_index
from tests.support.services import (
    CORPUS,
    SECRET,
    caught_up,
    commit,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_metadata,
)
from tests.support.spine import (
    EXTERNAL,
    Watched,
    chunk,
    collection,
    index_all,
    indexer_of,
    retrieve,
    second_process,
    sql,
    statuses,
    texts,
    validate,
)

pytestmark = pytest.mark.guarantee(9)


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """A corpus with the five commits, all of them indexed; no indexer and no worker runs."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        services.erasures._patience_s = 0.0
        await make_corpus(services, embedding=EXTERNAL, verdict_ttl_ms=1, filterable={"team": "keyword"})
        await history(services)
        await index_all(services)
        yield services


async def erase(services: Services, *keys: str, keys_too: bool = False) -> wire.ErasureReceipt:
    request = wire.ErasureRequest(keys=list(keys), reason="asked for", actor="dpo", keys_too=keys_too)
    return await services.erasures.erase(CORPUS, request)


async def completed(services: Services, *keys: str, keys_too: bool = False) -> wire.ErasureReceipt:
    """Erase, let the indexer pass, and let the worker come by."""
    receipt = await erase(services, *keys, keys_too=keys_too)
    await index_all(services)
    await services.erasures.work()
    return await services.erasures.get(CORPUS, int(receipt.id))


def states(receipt: wire.ErasureReceipt | wire.ErasureCheck) -> list[str]:
    return [store.state for store in receipt.stores]


async def points(services: Services) -> list[int]:
    return [int(point.chunk_id) for point in await all_points(services, CORPUS)]


async def chunk_ids(services: Services, *wanted: str) -> list[int]:
    rows = await query(services.database.url, "SELECT id FROM chunk WHERE text = ANY($1) ORDER BY id", list(wanted))
    return [row["id"] for row in rows]


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
    assert {
        1: ["a1", "a2", "b1"],
        3: ["a1", "a3"],
        5: ["d1"],
    } == {epoch: texts(await retrieve(stopped, epoch=epoch)) for epoch in (1, 3, 5)}
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


# ── complete only when it is ────────────────────────────────────────────────────────────────────────────────


async def test_g09_it_is_pending_until_the_indexer_has_passed(stopped: Services) -> None:
    """Until then, what was read before the erasure may still be on its way into the index."""
    receipt = await erase(stopped, "a")
    assert ("pending", ["erased", "erased", "pending"]) == (receipt.state, states(receipt))
    assert receipt.completed_at is None
    await index_all(stopped)
    await stopped.erasures.work()
    receipt = await stopped.erasures.get(CORPUS, int(receipt.id))
    assert ("complete", ["erased"] * 3) == (receipt.state, states(receipt))
    assert receipt.completed_at is not None
    assert any("own" in way or "vectors of 3" in way for way in receipt.stores[2].verified_by)


async def test_g09_it_completes_by_itself_when_the_index_returns(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose index is away answers `pending`, with everything out of the ledger; its worker does the rest."""
    monkeypatch.setattr("ragver.erasure.WORK_S", 0.02)
    async with open_test_services(database_url, tmp_path / "data", indexing=True) as services:
        await make_corpus(services, embedding=EXTERNAL, verdict_ttl_ms=1)
        await history(services)
        await caught_up(services)
        index = Watched(services.index)
        services.erasures._index = index
        services.erasures._patience_s = 0.0
        index.away = True
        receipt = await erase(services, "a")
        assert ("pending", "erased", "pending") == (receipt.state, receipt.stores[0].state, receipt.stores[2].state)
        assert "index_unavailable" in (receipt.stores[2].detail or "")
        index.away = False
        async with asyncio.timeout(20):
            while True:
                if (await services.erasures.get(CORPUS, int(receipt.id))).state == "complete":
                    break
                await asyncio.sleep(0.02)
    assert 3 == receipt.chunks


class Forgetful(Watched):
    """An index that says it has deleted, and has not; as often as told."""

    def __init__(self, inner: Any, lies: int) -> None:
        super().__init__(inner)
        self.lies = lies

    async def delete(self, collection: Collection, chunk_ids: Sequence[ChunkId]) -> None:
        if self.lies > 0:
            self.lies -= 1
            return
        await super().delete(collection, chunk_ids)


async def test_g09_a_lost_delete_is_seen_and_repeated(stopped: Services) -> None:
    """Nobody is believed who says that points were deleted: they are looked for."""
    stopped.erasures._index = Forgetful(stopped.index, lies=2)
    receipt = await erase(stopped, "a")
    assert "pending" == receipt.state
    await index_all(stopped)
    await stopped.erasures.work()
    assert "pending" == (await stopped.erasures.get(CORPUS, int(receipt.id))).state
    assert 6 == len(await points(stopped))
    await stopped.erasures.work()
    assert "complete" == (await stopped.erasures.get(CORPUS, int(receipt.id))).state
    assert 3 == len(await points(stopped))


async def test_g09_anomaly_without_the_look_a_lost_delete_is_called_complete(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragver import absence

    async def believing(*_: object) -> absence.Look:
        return absence.Look(frozenset(), ())

    monkeypatch.setattr(absence, "look", believing)
    stopped.erasures._index = Forgetful(stopped.index, lies=99)
    assert "complete" == (await completed(stopped, "a")).state
    assert 6 == len(await points(stopped))


class Haunted(Watched):
    """An index with a point that only one kind of call still shows."""

    def __init__(self, inner: Any, way: str, ghost: int) -> None:
        super().__init__(inner)
        self.way, self.ghost = way, ChunkId(ghost)

    async def lookup(self, collection: Collection, chunk_ids: Sequence[ChunkId], **how: Any) -> Any:
        found = await super().lookup(collection, chunk_ids, **how)
        return [*found, *await self._shown("lookup", collection)]

    async def scroll(self, collection: Collection, after: ChunkId | None, limit: int, **how: Any) -> Any:
        return [*await super().scroll(collection, after, limit, **how), *await self._shown("scroll", collection)]

    async def search(self, collection: Collection, search: Any) -> Any:
        from ragver.index.port import Match

        found = await super().search(collection, search)
        return [*found, Match(self.ghost, 1.0)] if self.way == "search" else found

    async def _shown(self, way: str, collection: Collection) -> Any:
        from ragver.index.port import StoredPoint

        return [StoredPoint(self.ghost, {}, None)] if way == self.way else []


@pytest.mark.parametrize("way", ["lookup", "scroll", "search"])
async def test_g09_what_any_way_still_finds_is_not_erased(stopped: Services, way: str) -> None:
    (ghost,) = await chunk_ids(stopped, "a3")
    stopped.erasures._index = Haunted(stopped.index, way, ghost)
    receipt = await completed(stopped, "a")
    assert "pending" == receipt.state
    stopped.erasures._index = stopped.index
    await stopped.erasures.work()
    assert "complete" == (await stopped.erasures.get(CORPUS, int(receipt.id))).state


# ── nothing brings it back ──────────────────────────────────────────────────────────────────────────────────


async def read_before(services: Services) -> tuple[Indexer, Any, Any]:
    """An indexer with what it has read of the whole history, paused before it applies it."""
    (standing,) = await generations.all_of(services.database)
    found = await chunks.changes(
        services.database, standing.corpus, standing.generation.generation_id, (Epoch(0), ChunkId(0)), 100
    )
    return indexer_of(services), standing, found


async def test_g09_a_paused_leader_that_writes_after_takes_it_back(stopped: Services) -> None:
    """It inserts what it had read before the erasure, sees that the ledger has no vector for it, and removes it."""
    paused, standing, found = await read_before(stopped)
    receipt = await completed(stopped, "a")
    kept = await points(stopped)
    await paused.apply(standing, found)
    assert kept == await points(stopped)
    assert (await stopped.erasures.check(CORPUS, int(receipt.id))).erased


async def test_g09_anomaly_a_late_write_that_nobody_takes_back_is_found_by_the_second_look(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader is killed between its late insert and its look at the ledger."""
    paused, standing, found = await read_before(stopped)
    receipt = await completed(stopped, "a")

    async def killed(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Indexer, "_take_back", killed)
    with suppress(RuntimeError):
        await paused.apply(standing, found)
    assert 6 == len(await points(stopped))
    check = await stopped.erasures.check(CORPUS, int(receipt.id))
    assert (False, "pending") == (check.erased, check.stores[2].state)
    stopped.erasures._second_look_at_s = 0.0
    await stopped.erasures.work()
    assert 3 == len(await points(stopped))
    assert 1 == stopped.metrics.erasures_undone._value.get()


async def test_g09_an_index_built_again_from_the_ledger_has_nothing_of_it(stopped: Services) -> None:
    await completed(stopped, "a")
    await stopped.index.drop(await collection(stopped))
    await index_all_of_lost(stopped)
    assert 3 == len(await points(stopped))


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


# ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings(LOCAL_WARNING)
@pytest.mark.parametrize(
    ("written", "states", "outcome"),
    [
        (2, ["Active", "Active"], "all 2 replicas"),
        (2, ["Active", "Dead"], "is Dead"),
        (1, ["Active", "Active"], "counts when 1 of 2"),
    ],
)
async def test_g09_a_replica_that_nobody_asked_keeps_it_from_being_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, states: list[str], outcome: str
) -> None:
    """A server's answers are set by the test; there is no cluster here."""
    index, where = local_index(tmp_path), a_collection()
    await index.ensure(where)
    found = await index._describe(where)
    params = found.config.params.model_copy(update={"replication_factor": 2, "write_consistency_factor": written})
    config = found.config.model_copy(update={"params": params})
    shards = [models.LocalShardInfo(shard_id=0, points_count=0, state=models.ReplicaState(one)) for one in states]

    async def described(_: Collection) -> models.CollectionInfo:
        return found.model_copy(update={"config": config})

    async def cluster(_: str) -> models.CollectionClusterInfo:
        return models.CollectionClusterInfo(
            peer_id=1, shard_count=1, local_shards=shards[:1], remote_shards=[], shard_transfers=[]
        ).model_copy(update={"remote_shards": shards[1:]})

    monkeypatch.setattr(index, "_describe", described)
    monkeypatch.setattr(index._client, "collection_cluster_info", cluster)
    try:
        told = " ".join((await look(index, where, [ChunkId(1)], [], Epoch(1))).ways)
    except IndexUnavailable as error:
        told = error.detail
    await index.close()
    assert outcome in told


async def test_g09_it_goes_from_every_generation(services: Services) -> None:
    """From the one that serves, and from the one that was built beside it and stands by, with vectors of its own."""
    await make_corpus(services, verdict_ttl_ms=1)
    await commit(services, CORPUS, put("a", "a page about ducks"), put("b", "a page about geese"))
    await commit(services, CORPUS, put("a", "a page about swans"))
    await migrated(services)
    receipt = await erase(services, "a")
    assert ("complete", ["erased"] * 4) == (receipt.state, states(receipt))
    left = await query(
        services.database.url, "SELECT generation_id, count(*) AS n FROM embedding GROUP BY 1 ORDER BY 1"
    )
    assert [1, 1] == [row["n"] for row in left]
    for standing in await generations.all_of(services.database):
        assert 1 == await services.index.count(collection_of(standing))


async def test_g09_a_collection_that_is_still_to_be_dropped_keeps_it_pending(stopped: Services) -> None:
    await sql(
        stopped,
        "INSERT INTO dropped_collection (corpus_id, generation_id, collection, embedding) "
        "SELECT corpus_id, id + 1000, 'ragver_old', embedding FROM index_generation",
    )
    receipt = await completed(stopped, "a")
    assert ("pending", "pending") == (receipt.state, receipt.stores[-1].state)
    await sql(stopped, "DELETE FROM dropped_collection")
    await stopped.erasures.work()
    assert "complete" == (await stopped.erasures.get(CORPUS, int(receipt.id))).state
