"""Drift of every kind is found and repaired, and none is reported that is not there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import CollectionRunning, DocumentNotFound
from ragver.index.port import Search
from ragver.reconciler import looking, repair
from ragver.reconciler.diff import Drift
from ragver.reconciler.looking import Confirmed
from ragver.types import ChunkId, DriftKind, Epoch, RunState
from tests.support import recorded
from tests.support.drift import Injector, found, meddled, reconcile
from tests.support.ledger import check_index
from tests.support.services import (
    CORPUS,
    caught_up,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_acl,
    set_metadata,
)
from tests.support.spine import EXTERNAL, chunk, collection, index_all, sql

pytestmark = pytest.mark.guarantee(12)

RECORDS = 400
SHARE = 12
SEED = 20_241
EACH = 14
RUNS = 20
WRITERS = 4


async def replay(services: Services, records: int, share: int) -> None:
    """The recorded history of one page in `share`, a commit a record."""
    pages: set[str] = set()
    for record in recorded.RecordedHistory(records).records:
        ops = [one for operation in record["ops"] for one in _operations(operation, pages, share)]
        if ops:
            await commit(services, CORPUS, *ops)


def _operations(operation: dict[str, Any], pages: set[str], share: int) -> list[wire.Operation]:
    path = operation["path"]
    match operation["op"]:
        case "delete" if path in pages:
            pages.remove(path)
            return [delete(path)]
        case "rename" if operation["from"] in pages:
            pages.remove(operation["from"])
            pages.add(path)
            return [rename(operation["from"], path), put(path, operation["text"])]
        case "put" if path in pages or crc32(path.encode()) % share == 0:
            pages.add(path)
            return [put(path, operation["text"], metadata={"year": 2_000 + len(path) % 25})]
        case _:
            return []


# every kind


@pytest.mark.slow
@pytest.mark.skipif(not recorded.HISTORY.exists(), reason=f"the recorded history {recorded.HISTORY} is absent")
async def test_g12_every_kind_is_found_where_it_was_planted_and_repaired(services: Services) -> None:
    """In an index that has followed a real history; a second run finds nothing."""
    await make_corpus(services, filterable={"year": "integer"})
    await replay(services, RECORDS, SHARE)
    await caught_up(services)
    meddling, index = meddled(services)
    assert {} == found(await reconcile(meddling, verify_vectors=True))
    planted = await Injector(services, index, SEED).plant(EACH)

    told = await reconcile(meddling, verify_vectors=True)

    print(f"seed {SEED}: {EACH} of each kind among {told.points} points")
    assert planted == found(told)
    assert {kind: len(chunks) for kind, chunks in planted.items()} == told.counts
    assert told.repaired == dict.fromkeys(DriftKind, 0)
    mended = await reconcile(meddling, verify_vectors=True, repair=True)
    assert mended.counts == mended.repaired == told.counts
    assert all(finding.repaired for finding in mended.findings)
    assert {} == found(await reconcile(meddling, verify_vectors=True))
    await check_index(services, CORPUS)


async def test_g12_a_dry_run_changes_nothing(services: Services) -> None:
    await make_corpus(services)
    await commit(services, CORPUS, *(put(f"d{number}", f"text {number}") for number in range(20)))
    await caught_up(services)
    where = await collection(services)
    lost = (await services.index.scroll(where, None, 1))[0].chunk_id
    await services.index.delete(where, [lost])

    first, second = await reconcile(services), await reconcile(services)

    assert found(first) == found(second) == {DriftKind.MISSING: {lost}}
    assert 19 == await services.index.count(where)


# no drift that is not there


@pytest.mark.slow
async def test_g12_nothing_is_reported_while_anybody_works(
    services: Services,
) -> None:
    """Four writers commit for as long as twenty runs take, every other of which would repair."""
    await make_corpus(services, filterable={"year": "integer"}, retention_s=60)
    await sql(services, "UPDATE corpus SET retention_s = 0")
    await commit(services, CORPUS, *(put(f"d{number}", f"text {number}") for number in range(200)))
    await caught_up(services)
    done = asyncio.Event()
    workers = [asyncio.create_task(_write(services, SEED + number, done)) for number in range(WRITERS)]
    workers.append(asyncio.create_task(_remove(services, done)))

    runs = [await reconcile(services, repair=bool(number % 2), verify_vectors=True) for number in range(RUNS)]

    done.set()
    commits = sum(await asyncio.gather(*workers))
    passed_over = sum(run.in_flight for run in runs)
    print(f"seed {SEED}: {commits} commits, {sum(run.points for run in runs)} points, {passed_over} passed over")
    assert [{}] * RUNS == [found(run) for run in runs]
    assert [RunState.COMPLETE] * RUNS == [run.state for run in runs]
    assert commits > RUNS
    await caught_up(services)
    await check_index(services, CORPUS)


async def _write(services: Services, seed: int, done: asyncio.Event) -> int:
    """Random changes until it is done; how many commits."""
    chance = random.Random(seed)
    commits = 0
    while not done.is_set():
        with suppress(DocumentNotFound):  # deleted by another writer
            await commit(services, CORPUS, _change(chance))
        commits += 1
        await asyncio.sleep(0)
    return commits


def _change(chance: random.Random) -> wire.Operation:
    key, text = f"d{chance.randrange(200)}", f"# a\n\n{chance.random()}\n\n# b\n\n{chance.random()}"
    changes: list[wire.Operation] = [
        put(key, text),
        put(key, text, metadata={"year": chance.randrange(3)}),
        put(f"new-{chance.random()}", text),
        set_acl(key, chance.choice(["*", "group:hr"])),
        set_metadata(key, year=chance.randrange(3)),
        delete(key),
    ]
    return chance.choice(changes)


async def _remove(services: Services, done: asyncio.Event) -> int:
    """Collect what has passed the horizon, and erase documents, until it is done; how many commits that makes."""
    erasures = 0
    while not done.is_set():
        with suppress(CollectionRunning):  # a repair keeps collections out
            await services.retention.collect(CORPUS)
        with suppress(DocumentNotFound):
            await services.erasures.erase(CORPUS, wire.ErasureRequest(keys=[f"d{erasures}"], reason="asked for"))
        erasures += 1
    return erasures


async def test_g12_what_commits_between_the_two_looks_is_no_drift(services: Services) -> None:
    meddling, index = await _about_to_be_overtaken(services)

    assert {} == found(await reconcile(meddling))

    assert index.before_page is None, "the commit was made in the middle of the run"


async def test_g12_without_the_second_look_work_in_flight_is_reported(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same course of events, and each suspect believed."""

    async def believe(self: object, suspects: Sequence[ChunkId], reached: object = ()) -> list[Confirmed]:
        return [Confirmed(one, None, Drift(DriftKind.STALE_PAYLOAD, {})) for one in suspects]

    meddling, _ = await _about_to_be_overtaken(services)
    monkeypatch.setattr(looking.Looker, "confirmed", believe)
    monkeypatch.setattr("ragver.reconciler.sampling.COMPARED_POINTS", 0)

    assert found(await reconcile(meddling)) != {}


async def _about_to_be_overtaken(services: Services) -> Any:
    """After the ledger was read and before the index is, a page is deleted, another comes, and both are indexed."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "first"), put("b", "second"))
    await caught_up(services)
    meddling, index = meddled(services)

    async def overtake() -> None:
        await commit(services, CORPUS, delete("a"), put("c", "third"), set_acl("b", "group:hr"))
        await caught_up(services)

    index.before_page = overtake
    return meddling, index


# repairs and what goes on beside them


async def test_g12_a_repair_does_not_bring_back_what_dies_meanwhile(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        assert [] == await _visible_after_a_death_in_mid_repair(services)


async def test_g12_without_looking_again_a_repair_brings_back_the_dead(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same course of events, and a repair that writes what it has read and believes that this was that."""

    async def careless(self: Any, chunk_ids: Sequence[ChunkId], reached: object) -> list[Confirmed]:
        await self._write(chunk_ids, anew=False)
        return []

    monkeypatch.setattr(repair, "unmoved", lambda one, other: True)
    monkeypatch.setattr(repair.Repairer, "_repair", careless)
    async with open_test_services(database_url, tmp_path / "data") as services:
        assert len(await _visible_after_a_death_in_mid_repair(services)) == 1


async def _visible_after_a_death_in_mid_repair(services: Services) -> list[int]:
    """A point is missing; as it is being put back, its page is deleted and the indexer has applied that."""
    await make_corpus(services, embedding=EXTERNAL)
    await commit(services, CORPUS, *(put(f"d{rank}", chunks=[chunk(f"text {rank}", rank)]) for rank in range(20)))
    await index_all(services)
    where = await collection(services)
    lost = (await services.index.scroll(where, None, 1))[0].chunk_id
    await services.index.delete(where, [lost])
    meddling, index = meddled(services)

    async def die() -> None:
        await commit(services, CORPUS, delete("d0"))
        await index_all(services)
        # The indexer has put the dead point there. A server that loses it, too, is what makes the race.
        await services.index.delete(where, [lost])

    index.before_upsert = die
    run = await reconcile(meddling, repair=True)
    assert run.counts[DriftKind.MISSING] == 1
    matches = await services.index.search(where, Search(vector=_east(), limit=50, epoch=Epoch(2), principals=()))
    return [match.chunk_id for match in matches if match.chunk_id == lost]


def _east() -> Any:
    import numpy as np

    return np.array([1, 0, 0, 0], dtype=np.float32)
