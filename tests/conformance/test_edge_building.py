"""The embedded index stays right while it builds its graph, whatever is written, dropped or killed meanwhile."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ragver.index import building, edge_engine, edge_shard
from ragver.index.building import Build
from ragver.index.edge import EdgeIndex
from ragver.index.port import Collection, Index, Point
from ragver.index.scoring import normalised
from ragver.testing.comparison_suite import ComparisonConformance
from ragver.testing.index_suite import (
    a_collection,
    a_payload,
    a_point,
    a_search,
    a_vector,
    deaths,
    found,
    ids,
    payloads,
)
from ragver.types import ChunkId, Distance, FieldType

KILLS = 6
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def builds_are_made_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_shard, "BUILD_POINTS_MIN", 5)
    monkeypatch.setattr(edge_shard, "BUILD_RETRY_S", 0.0)
    monkeypatch.setattr(edge_engine, "FULL_SCAN_KB", 1)


class TestEdgeThatBuildsAllTheTime(ComparisonConformance):
    @pytest.fixture
    def open_index(self, tmp_path: Path) -> Callable[[], Index]:
        return lambda: EdgeIndex(tmp_path / "index")


def shards(directory: Path, collection: Collection) -> set[str]:
    return {path.name for path in (directory / collection.name).glob("shard-*")}


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.01)


async def a_build_is_made(index: EdgeIndex, collection: Collection) -> None:
    """Wait until no build runs, and all points but those written during the last are in the graph."""
    shard = index._shard(collection)
    await until(lambda: not shard.building and shard._in_graph > 0)


def clustered(count: int, seed: int, dimensions: int) -> NDArray[np.float32]:
    centres = np.random.default_rng(0).standard_normal((20, dimensions))
    rng = np.random.default_rng(seed)
    near = centres[rng.integers(0, len(centres), count)] + 0.4 * rng.standard_normal((count, dimensions))
    return normalised(Distance.COSINE, near.astype(np.float32))


async def test_the_graph_finds_what_an_exact_search_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a third of the points dead, and again after more points and a second build."""
    monkeypatch.setattr(edge_shard, "BUILD_POINTS_MIN", 3_000)
    collection = a_collection(dimensions=32)
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    vectors, queries = clustered(6_000, 1, 32), clustered(50, 2, 32)
    for end in (3_000, 6_000):
        points = [Point(ChunkId(n + 1), vectors[n], a_payload()) for n in range(end - 3_000, end)]
        await index.upsert(collection, points)
        await index.mark_dead(collection, deaths(dict.fromkeys(range(end - 2_999, end, 3), 2)))
        await a_build_is_made(index, collection)
        assert index._shard(collection)._in_graph >= end
        alive = np.array([n for n in range(end) if n % 3])
        assert end == await index.count(collection)
        hits = 0
        for query in queries:
            nearest = alive[np.argsort(-(vectors[alive] @ query))[:10]] + 1
            hits += len(found(await index.search(collection, a_search(vector=query, limit=10))) & set(nearest.tolist()))
        assert hits >= 0.95 * 10 * len(queries)
    await index.close()


async def test_what_is_written_during_a_build_is_there_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New points, deaths, refreshes and deletes, on points of the copy and on later ones; the point inserted again
    stays as it was. Carried over in several turns, and still there after a restart."""
    monkeypatch.setattr(edge_shard, "CARRY_POINTS_MAX", 3)
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    run, let_go = Build.run, asyncio.Event()
    loop = asyncio.get_running_loop()

    def held_back(build: Build) -> None:
        asyncio.run_coroutine_threadsafe(let_go.wait(), loop).result(WAIT_S)
        run(build)

    monkeypatch.setattr(Build, "run", held_back)
    await index.upsert(collection, [a_point(number) for number in range(1, 21)])
    await until(lambda: index._shard(collection)._build is not None)
    await index.count(collection)

    await index.upsert(collection, [replace(a_point(1, born=9), vector=a_point(2).vector), a_point(21), a_point(22)])
    await index.mark_dead(collection, deaths({2: 3, 21: 4}))
    await index.refresh_payload(collection, {ChunkId(3): a_payload(5, acl=["group:hr"])})
    await index.delete(collection, ids(4, 22))
    before = await index.scroll(collection, None, 100, with_vectors=True)
    shards_before = index._shard(collection)._directory
    let_go.set()
    await until(lambda: index._shard(collection)._directory != shards_before)
    await until(lambda: not index._shard(collection).building)

    after = await index.scroll(collection, None, 100, with_vectors=True)
    await index.close()
    again = EdgeIndex(tmp_path)
    restarted = await again.scroll(collection, None, 100, with_vectors=True)
    visible = found(await again.search(collection, a_search()))
    await again.close()
    expected = [(point.chunk_id, point.payload, point.vector.tolist()) for point in before if point.vector is not None]
    for points in (after, restarted):
        assert expected == [(p.chunk_id, p.payload, p.vector.tolist()) for p in points if p.vector is not None]
    assert {1, *range(5, 21)} == visible


async def test_writes_and_searches_go_on_through_many_builds(tmp_path: Path) -> None:
    """Ended by the clock of the builds: three of them have to come and go."""
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    shard, seen, number = index._shard(collection), set[Path](), 0
    async with asyncio.timeout(WAIT_S):
        while len(seen) < 4:
            number += 1
            seen.add(shard._directory)
            await index.upsert(collection, [a_point(number), a_point(10_000 + number), a_point(20_000 + number)])
            await index.mark_dead(collection, deaths({number: 2}))
            await index.delete(collection, ids(20_000 + number))
            alive = found(await index.search(collection, a_search(vector=a_vector(10_000 + number), limit=1)))
            assert {10_000 + number} == alive

    stored = await payloads(index, collection)
    assert stored.keys() == {*range(1, number + 1), *range(10_001, 10_001 + number)}
    assert {n for n, payload in stored.items() if payload.get("died_epoch") == 2} == set(range(1, number + 1))
    await index.close()
    assert len(shards(tmp_path, collection)) == 1


@pytest.mark.parametrize("end", ["raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"])
async def test_a_build_that_fails_leaves_the_index_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """And is not tried again at once."""
    monkeypatch.setattr(edge_shard, "BUILD_RETRY_S", 600.0)
    (tmp_path / "failing.py").write_text(end)
    monkeypatch.setattr(building, "__file__", str(tmp_path / "failing.py"))
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    await index.upsert(collection, [a_point(number) for number in range(1, 21)])
    shard = index._shard(collection)
    await until(lambda: not shard.building)

    await index.upsert(collection, [a_point(21)])

    assert not shard.building
    assert len(shards(tmp_path, collection)) == 1
    assert set(range(1, 22)) == found(await index.search(collection, a_search()))
    await index.close()


@pytest.mark.parametrize("ending", ["drop", "close"])
async def test_a_build_stops_with_its_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """A child that would run for long is killed, and its directory removed."""
    (tmp_path / "slow.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(building, "__file__", str(tmp_path / "slow.py"))
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    await index.upsert(collection, [a_point(number) for number in range(1, 21)])
    shard = index._shard(collection)
    await until(lambda: shard._build is not None and shard._build._child is not None)
    assert shard._build is not None
    child = shard._build._child
    assert child is not None

    async with asyncio.timeout(WAIT_S):
        if ending == "drop":
            await index.drop(collection)
            assert await index.ensure(collection)
        await index.close()

    assert child.returncode is not None
    assert child.returncode < 0
    assert len(shards(tmp_path, collection)) == 1


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from ragver.index import edge, edge_engine, edge_shard
from ragver.testing.index_suite import a_collection, a_point, deaths, ids

edge_shard.BUILD_POINTS_MIN, edge_shard.BUILD_RETRY_S = 5, 0.0

async def main(directory, name):
    index, collection = edge.EdgeIndex(Path(directory)), a_collection(name=name)
    await index.ensure(collection)
    shard = index._shard(collection)
    for number in itertools.count(1):
        await index.upsert(collection, [a_point(number), a_point(10_000 + number), a_point(20_000 + number)])
        await index.mark_dead(collection, deaths({number: 2}))
        await index.delete(collection, ids(20_000 + number))
        print("wrote", number, shard._directory.name, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", range(KILLS))
async def test_a_process_killed_while_it_builds_and_swaps_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Killed at a random moment after its first swap, in the midst of copying, building, carrying over or swapping."""
    collection = a_collection()
    command = [sys.executable, "-c", WRITER, str(tmp_path), collection.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220
        assert child.stdout is not None
        rounds = (line.split() for line in child.stdout if line.startswith("wrote ") and line.endswith("\n"))
        directories: set[str] = set()
        written = 0
        for _, number, directory in rounds:
            written, directories = int(number), {*directories, directory}
            if len(directories) > 1:
                break
        time.sleep(random.Random(seed).uniform(0.0, 0.6))  # noqa: ASYNC251 - nothing else is to go on
        child.kill()
        written = max([written, *(int(number) for _, number, _ in rounds)])

    index = EdgeIndex(tmp_path)
    assert not await index.ensure(collection)
    stored = await payloads(index, collection)
    points = await index.scroll(collection, None, 100_000)
    alive = found(await index.search(collection, a_search(limit=100_000)))
    await index.close()

    numbers = set(range(1, written + 1))
    assert len(points) == len(stored)
    assert numbers <= {number for number, payload in stored.items() if payload.get("died_epoch") == 2}
    assert {10_000 + number for number in numbers} <= alive
    assert not alive & numbers
    assert not stored.keys() & {20_000 + number for number in numbers}
    assert len(shards(tmp_path, collection)) == 1


@pytest.mark.parametrize("graph", [False, True])
async def test_compacting_leaves_nothing_of_deleted_points_on_the_disk(
    graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither vector nor payload, in segments, payload indexes or log; while points come and go meanwhile."""
    monkeypatch.setattr(edge_shard, "BUILD_POINTS_MIN", 200 if graph else 10**6)
    collection = replace(a_collection(dimensions=64), filterable={"team": FieldType.KEYWORD})
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    points = [_secret(number) for number in range(300)]
    await index.upsert(collection, points[:250])
    if graph:
        await until(lambda: index._shards[collection.name]._in_graph > 0)
    doomed = points[117]
    await index.delete(collection, [doomed.chunk_id])
    assert _holding(tmp_path, b"secret-117", doomed.vector.tobytes())

    async with asyncio.TaskGroup() as group:
        group.create_task(index.compact(collection))
        group.create_task(index.upsert(collection, points[250:]))
        group.create_task(index.delete(collection, [points[118].chunk_id]))
    assert not _holding(tmp_path, b"secret-117", doomed.vector.tobytes())
    kept = sorted(point.chunk_id for point in points if point not in (points[117], points[118]))
    assert kept == [point.chunk_id for point in await index.scroll(collection, None, 1_000)]
    assert graph is (index._shards[collection.name]._in_graph > 0)
    assert 1 == len(shards(tmp_path, collection))
    await index.close()


def _secret(number: int) -> Point:
    """A point whose payload no other point has."""
    chunk_id = ChunkId(200_000 + number)
    vector = normalised(Distance.COSINE, a_vector(chunk_id, 64))
    return Point(chunk_id, vector, replace(a_payload(), metadata={"team": f"secret-{number}"}))


def _holding(directory: Path, *wanted: bytes) -> list[str]:
    """The files that hold any of these bytes."""
    return [
        path.name for path in directory.rglob("*") if path.is_file() and any(one in path.read_bytes() for one in wanted)
    ]
