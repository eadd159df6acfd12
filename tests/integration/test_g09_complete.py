"""G9: an erasure is only called complete once it is, and nothing brings back what it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from ragver.absence import look
from ragver.bootstrap import Services
from ragver.collection import collection_of
from ragver.errors import IndexUnavailable
from ragver.index.port import Collection
from ragver.indexer import Indexer
from ragver.ledger import generations
from ragver.testing.index_suite import a_collection
from ragver.types import ChunkId, Epoch
from tests.support.erasure import chunk_ids, completed, erase, five_commits_indexed, points, states
from tests.support.five_commits import history, index_all_of_lost, read_all
from tests.support.generations import migrated
from tests.support.ledger import query
from tests.support.qdrant_engines import LOCAL_WARNING, local_index
from tests.support.services import CORPUS, caught_up, commit, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, Watched, collection, index_all, indexer_of, sql

pytestmark = pytest.mark.guarantee(9)


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    async with five_commits_indexed(database_url, tmp_path / "data") as services:
        yield services


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


async def test_g09_a_paused_leader_that_writes_after_takes_it_back(stopped: Services) -> None:
    """It inserts what it had read before the erasure, sees that the ledger has no vector for it, and removes it."""
    standing, found = await read_all(stopped)
    receipt = await completed(stopped, "a")
    kept = await points(stopped)
    await indexer_of(stopped).apply(standing, found)
    assert kept == await points(stopped)
    assert (await stopped.erasures.check(CORPUS, int(receipt.id))).erased


async def test_g09_anomaly_a_late_write_that_nobody_takes_back_is_found_by_the_second_look(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader is killed between its late insert and its look at the ledger."""
    standing, found = await read_all(stopped)
    receipt = await completed(stopped, "a")

    async def killed(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Indexer, "_take_back", killed)
    with suppress(RuntimeError):
        await indexer_of(stopped).apply(standing, found)
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
