"""Retention: the horizon, what goes behind it, and the pins that hold it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ragver import retention, wire
from ragver.bootstrap import Services
from ragver.errors import (
    CollectionRunning,
    EpochAhead,
    IndexUnavailable,
    LedgerUnavailable,
    PinNotFound,
    SnapshotExpired,
    TooManyPins,
)
from ragver.ledger import commits, documents
from ragver.ledger import retention as horizon
from ragver.liveness import CorpusView
from ragver.types import CorpusId, Epoch
from tests.support.five_commits import ALIVE, history, read_all
from tests.support.ledger import all_points, check_index, query, waits_for_a_lock
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import (
    EXTERNAL,
    chunk,
    index_all,
    indexer_of,
    retrieve,
    second_process,
    sql,
    statuses,
    texts,
    validate,
    watched,
)

pytestmark = pytest.mark.guarantee(3)

RETENTION_S = 600
LEFT = {
    "texts": "SELECT count(*) AS n FROM chunk WHERE text IS NOT NULL",
    "vectors": "SELECT count(*) AS n FROM embedding",
    "tombstones": "SELECT count(*) AS n FROM chunk",
}
CHUNKS = 6
"""How many the five commits bring."""


@pytest.fixture
async def aged(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Five commits, the first three of them older than the retention; indexed, and no process at work."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL, retention_s=RETENTION_S)
        await history(services)
        await index_all(services)
        await age(services, 3)
        yield services


async def age(services: Services, epoch: int) -> None:
    """Let the commits up to `epoch` have been made an hour ago."""
    await sql(services, f"UPDATE commit_log SET committed_at = committed_at - interval '1 hour' WHERE epoch <= {epoch}")


async def left(services: Services) -> dict[str, int]:
    """What the stores hold."""
    counts = {name: (await query(services.database.url, statement))[0]["n"] for name, statement in LEFT.items()}
    return {**counts, "points": len(await all_points(services, CORPUS))}


async def test_g03_the_horizon_moves_by_the_retention_and_what_is_behind_it_goes(aged: Services) -> None:
    """An epoch can be read until another one has been the head for the retention's time. What died up to the horizon
    leaves both stores; what lived there stays readable, and nothing of it is missing."""
    assert dict.fromkeys([*LEFT, "points"], CHUNKS) == await left(aged)
    token = (await retrieve(aged, epoch=2)).snapshot

    done = await aged.retention.collect(CORPUS)

    assert (0, 3, 5, 2, 0) == (done.horizon_before, done.horizon, done.head, done.chunks, done.pins)
    assert {"texts": 4, "vectors": 4, "points": 4, "tombstones": CHUNKS} == await left(aged)
    for epoch in (3, 4, 5):
        assert ALIVE[epoch] == texts(await retrieve(aged, epoch=epoch))
    for read in (
        lambda: retrieve(aged, epoch=2),
        lambda: retrieve(aged, snapshot=token),
        lambda: validate(aged, token),
        lambda: aged.catalog.document(CORPUS, "a", 2),
        lambda: aged.catalog.documents(CORPUS, "", 2, None, 10),
    ):
        with pytest.raises(SnapshotExpired):
            await read()
    again = await aged.retention.collect(CORPUS)
    assert (3, 3, 0) == (again.horizon_before, again.horizon, again.chunks)
    await check_index(aged, CORPUS)


async def test_g03_without_a_retention_the_horizon_stays(aged: Services) -> None:
    await sql(aged, "UPDATE corpus SET retention_s = NULL")
    assert (0, 0) == ((done := await aged.retention.collect(CORPUS)).horizon, done.chunks)


async def test_g03_the_head_can_be_read_however_old_it_is(aged: Services) -> None:
    await age(aged, 5)
    done = await aged.retention.collect(CORPUS)
    assert (5, 4) == (done.horizon, done.chunks)
    assert ALIVE[5] == texts(await retrieve(aged))


async def test_g03_a_collection_in_mid_read_expires_the_read(aged: Services) -> None:
    """A real collection, at the moment that hurts, on each path."""
    services, index = watched(aged)

    async def collect() -> None:
        await aged.retention.collect(CORPUS)

    index.before_search = collect
    with pytest.raises(SnapshotExpired):
        await retrieve(services, epoch=2)


async def test_g03_a_collection_in_a_document_read_expires_it(aged: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    read = documents.at_epoch

    async def late(*arguments: Any) -> Any:
        await aged.retention.collect(CORPUS)
        return await read(*arguments)

    monkeypatch.setattr(documents, "at_epoch", late)
    with pytest.raises(SnapshotExpired):
        await aged.catalog.document(CORPUS, "a", 2)


async def test_g06_a_collection_in_mid_validation_changes_no_status(
    aged: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstones say all that a verdict needs; it is as of the head that was read before."""
    token = (await retrieve(aged, epoch=2)).snapshot
    other = await second_process(aged)
    records = CorpusView.records

    async def late(view: CorpusView, chunk_ids: Any) -> Any:
        await aged.retention.collect(CORPUS)
        return await records(view, chunk_ids)

    monkeypatch.setattr(CorpusView, "records", late)
    checked = await validate(other, token, citations=[{"ref": 2, "quote": "b1"}])
    assert ["deleted", "deleted", "deleted"] == statuses(checked)


async def test_a_killed_collection_is_finished_by_the_next(aged: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points go first: what has lost only them is still known to be due."""
    remove = horizon.remove
    monkeypatch.setattr(retention, "BATCH_CHUNKS_MAX", 1)

    async def killed(*_: object) -> int:
        raise LedgerUnavailable("the test ends it here")

    monkeypatch.setattr(horizon, "remove", killed)
    with pytest.raises(LedgerUnavailable):
        await aged.retention.collect(CORPUS)
    assert {"texts": CHUNKS, "vectors": CHUNKS, "points": CHUNKS - 1, "tombstones": CHUNKS} == await left(aged)
    with pytest.raises(SnapshotExpired):
        await retrieve(aged, epoch=2)
    monkeypatch.setattr(horizon, "remove", remove)
    assert 2 == (await aged.retention.collect(CORPUS)).chunks
    assert {"texts": 4, "vectors": 4, "points": 4, "tombstones": CHUNKS} == await left(aged)


async def test_while_the_index_is_away_nothing_leaves_the_ledger(aged: Services) -> None:
    """Or the index would keep points that nobody knows of any more."""
    services, index = watched(aged)
    index.away = True
    collecting = retention.Retention(aged.database, index, aged.retention._clock, 1.0, 3600, aged.metrics)
    with pytest.raises(IndexUnavailable):
        await collecting.collect(CORPUS)
    assert CHUNKS == (await left(aged))["texts"]
    index.away = False
    assert 2 == (await collecting.collect(CORPUS)).chunks
    assert services.index is index


async def insert_late(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """An indexer that has read everything inserts it between the removal of the points and that of the vectors."""
    standing, found = await read_all(services)
    remove = horizon.remove

    async def after_the_late_one(*asked: Any) -> int:
        await indexer_of(services).apply(standing, found)
        return await remove(*asked)

    monkeypatch.setattr(horizon, "remove", after_the_late_one)


async def test_g12_what_a_late_indexer_inserts_goes_with_the_rest(
    aged: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_late(aged, monkeypatch)
    assert 2 == (await aged.retention.collect(CORPUS)).chunks
    assert {"texts": 4, "vectors": 4, "points": 4, "tombstones": CHUNKS} == await left(aged)


async def test_g12_anomaly_points_that_are_deleted_once_are_left_by_a_late_indexer(
    aged: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert_late(aged, monkeypatch)
    remove_points, times = aged.retention._remove_points, count(1)

    async def once(*asked: Any) -> None:
        if next(times) == 1:
            await remove_points(*asked)

    monkeypatch.setattr(aged.retention, "_remove_points", once)
    assert 2 == (await aged.retention.collect(CORPUS)).chunks
    assert {"texts": 4, "vectors": 4, "points": CHUNKS, "tombstones": CHUNKS} == await left(aged)


async def test_g12_nothing_is_removed_that_the_index_is_still_to_hear_of(aged: Services) -> None:
    """Else a point could come and go while a reconciliation looks."""
    assert 2 == (await aged.retention.collect(CORPUS)).chunks
    await commit(aged, CORPUS, delete("b"))
    await commit(aged, CORPUS, put("e", chunks=[chunk("e1", 6)]))
    await age(aged, 6)
    told = await aged.retention.collect(CORPUS)
    assert (6, 2) == (told.horizon, told.chunks)
    await index_all(aged)
    assert 1 == (await aged.retention.collect(CORPUS)).chunks
    assert {"texts": 2, "vectors": 2, "points": 2, "tombstones": CHUNKS + 1} == await left(aged)


async def test_a_collector_lets_go_before_its_session_ends(aged: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may notice the end of the session later, and the next collector would be refused until then."""
    ending: list[asyncpg.Connection] = []
    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "terminate", lambda self: ending.append(self))
        async with horizon.collector(aged.database, CorpusId(1)) as alone:
            assert alone
    async with horizon.collector(aged.database, CorpusId(1)) as alone:
        assert alone
    for connection in ending:
        connection.terminate()
    await asyncio.sleep(0)


async def test_one_process_at_a_time_collects(aged: Services) -> None:
    async with horizon.collector(aged.database, CorpusId(1)) as alone:
        assert alone
        with pytest.raises(CollectionRunning):
            await aged.retention.collect(CORPUS)
    assert 2 == (await aged.retention.collect(CORPUS)).chunks


async def test_a_server_collects_by_itself(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data", indexing=True, gc_interval_s=0.02) as services:
        await make_corpus(services, embedding=EXTERNAL, retention_s=RETENTION_S)
        await history(services)
        await age(services, 5)
        await removed(services, CHUNKS - len(ALIVE[5]))
    assert CHUNKS - len(ALIVE[5]) == services.metrics.collected.labels(CORPUS)._value.get()


async def removed(services: Services, chunks: int) -> None:
    async with asyncio.timeout(20):
        while True:
            if (await left(services))["texts"] == CHUNKS - chunks:
                return
            await asyncio.sleep(0.02)


# ── pins ────────────────────────────────────────────────────────────────────────────────────────────────────


async def pin(services: Services, ttl_s: int = 60, **what: Any) -> wire.Pin:
    return await services.pins.add(CORPUS, wire.PinRequest(ttl_s=ttl_s, **what))


async def test_g03_a_pinned_epoch_stays_readable(aged: Services) -> None:
    """By its number or by a snapshot; until the pin is removed or expires."""
    token = (await retrieve(aged, epoch=2)).snapshot
    held = await pin(aged, snapshot=token)
    first = await pin(aged, epoch=1)
    assert (2, 1) == (held.epoch, first.epoch)
    assert [first, held] == await aged.pins.all(CORPUS)
    assert (1, 2) == ((done := await aged.retention.collect(CORPUS)).horizon, done.pins)

    await aged.pins.remove(CORPUS, int(first.pin_id))
    assert (2, 1) == ((done := await aged.retention.collect(CORPUS)).horizon, done.chunks)
    assert ALIVE[2] == texts(await retrieve(aged, snapshot=token))
    assert ["deleted"] * 3 == statuses(await validate(aged, token))

    await sql(aged, "UPDATE pin SET expires_at = clock_timestamp()")
    assert [] == await aged.pins.all(CORPUS)
    assert 3 == (await aged.retention.collect(CORPUS)).horizon
    assert [] == await query(aged.database.url, "SELECT * FROM pin")
    with pytest.raises(PinNotFound):
        await aged.pins.remove(CORPUS, int(held.pin_id))


async def test_g03_what_cannot_be_held_is_refused(aged: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    await aged.retention.collect(CORPUS)
    with pytest.raises(SnapshotExpired):
        await pin(aged, epoch=2)
    with pytest.raises(EpochAhead):
        await pin(aged, epoch=6)
    monkeypatch.setattr(horizon, "PINS_MAX", 1)
    await pin(aged, epoch=3)
    with pytest.raises(TooManyPins):
        await pin(aged, epoch=4)


async def race(services: Services) -> tuple[int, int]:
    """A pin that is being made while the horizon moves: which epoch it has, and where the horizon is then."""

    async def move() -> int:
        return (await horizon.move_horizon(services.database, CorpusId(1))).now

    async with services.database.transaction() as connection:
        await commits.lock(connection, CorpusId(1))
        held = await connection.first(horizon._PIN, {"corpus": 1, "epoch": 2, "ttl_s": 60})
        assert held is not None
        moving = asyncio.create_task(move())
        await waits_for_a_lock(services.database.url)
    return held.epoch, await moving


async def test_g03_a_pin_that_was_given_holds(aged: Services) -> None:
    """The horizon looks for pins when it has the lock, not before it had to wait for it."""
    assert (2, 2) == await race(aged)
    assert ALIVE[2] == texts(await retrieve(aged, epoch=2))


async def test_g03_anomaly_without_the_lock_first_a_given_pin_does_not_hold(
    aged: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update alone waits for the pin too, but with pins that it has looked up before."""

    async def unlocked(*_: object) -> None:
        return None

    monkeypatch.setattr(horizon, "lock", unlocked)
    assert (2, 3) == await race(aged)
    with pytest.raises(SnapshotExpired):
        await retrieve(aged, epoch=2)


async def test_g03_the_horizon_that_moved_first_refuses_the_pin(aged: Services) -> None:
    """The other order of the same race: the pin waits, and is then refused."""
    async with aged.database.transaction() as connection:
        await commits.lock(connection, CorpusId(1))
        await connection.fetch(horizon._MOVE, {"corpus": 1})
        pinning = asyncio.create_task(horizon.pin(aged.database, CorpusId(1), Epoch(2), 60))
        await waits_for_a_lock(aged.database.url)
    with pytest.raises(SnapshotExpired):
        await pinning


async def test_a_text_that_comes_again_after_its_vector_went_is_embedded_anew(aged: Services) -> None:
    """The vector of a removed chunk is not there to be copied; an equal text is a new chunk with its own vector."""
    await aged.retention.collect(CORPUS)
    await commit(aged, CORPUS, put("again", chunks=[chunk("b1", 3)]))
    assert "b1" in texts(await retrieve(aged))
    assert ALIVE[5] == texts(await retrieve(aged, epoch=5))
