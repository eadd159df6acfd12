"""The embedded index keeps the port's promises, also when its process dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ragver.errors import IndexUnavailable
from ragver.index import edge_shard
from ragver.index.edge import EdgeIndex
from ragver.index.edge_files import MARKER
from ragver.index.port import Index
from ragver.testing.comparison_suite import ComparisonConformance
from ragver.testing.index_suite import (
    a_collection,
    a_payload,
    a_point,
    a_search,
    deaths,
    found,
    ids,
    payloads,
)
from ragver.types import ChunkId, Distance

KILLS = 3


class TestEdge(ComparisonConformance):
    @pytest.fixture
    def open_index(self, tmp_path: Path) -> Callable[[], Index]:
        return lambda: EdgeIndex(tmp_path / "index")


WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from ragver.index.edge import EdgeIndex
from ragver.testing.index_suite import a_collection, a_point, deaths, ids

async def main(directory, name):
    index, collection = EdgeIndex(Path(directory)), a_collection(name=name)
    await index.ensure(collection)
    for number in itertools.count(1):
        await index.upsert(collection, [a_point(number), a_point(10_000 + number), a_point(20_000 + number)])
        await index.mark_dead(collection, deaths({number: 2}))
        await index.delete(collection, ids(20_000 + number))
        print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def acknowledged_before_kill(directory: Path, name: str, least: int) -> int:
    """Let a process write until it has acknowledged `least` rounds, kill it, and return the last one it did."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), name], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= least:
                break
        child.kill()
        return max([least, *map(int, child.stdout.read().split())])


@pytest.mark.parametrize("kill", range(KILLS))
async def test_a_killed_process_loses_no_write_that_returned(tmp_path: Path, kill: int) -> None:
    """The child is killed in the midst of its next writes, without a flush or a goodbye."""
    collection = a_collection()
    written = acknowledged_before_kill(tmp_path, collection.name, 1 + 40 * kill)

    index = EdgeIndex(tmp_path)
    try:
        assert not await index.ensure(collection)
        stored = await payloads(index, collection)
        alive = found(await index.search(collection, a_search()))
    finally:
        await index.close()

    numbers = set(range(1, written + 1))
    assert numbers <= {number for number, payload in stored.items() if payload.get("died_epoch") == 2}
    assert {10_000 + number for number in numbers} <= alive
    assert not alive & numbers
    assert not stored.keys() & {20_000 + number for number in numbers}


async def test_a_killed_process_loses_nothing_after_a_flush_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the bound of unflushed points the log is cut, and what it held is in the segments."""
    monkeypatch.setattr(edge_shard, "UNFLUSHED_POINTS_MAX", 10)
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    for number in range(1, 31):
        await index.upsert(collection, [a_point(number)])
    copied = tmp_path / "as-if-killed"
    shutil.copytree(tmp_path / collection.name, copied / collection.name)
    await index.close()

    survivor = EdgeIndex(copied)

    assert await survivor.count(collection) == 30
    await survivor.close()


async def test_every_write_reaches_the_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut cannot be had in a test; so look at what is synced instead: the engine's log."""
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    synced: list[str] = []
    monkeypatch.setattr(edge_shard, "sync", lambda *paths: synced.extend(path.name for path in paths))

    writes: list[Callable[[], Awaitable[None]]] = [
        lambda: index.upsert(collection, [a_point(1)]),
        lambda: index.mark_dead(collection, deaths({1: 2})),
        lambda: index.refresh_payload(collection, {ChunkId(1): a_payload(2)}),
        lambda: index.delete(collection, ids(1)),
    ]
    for write in writes:
        synced.clear()
        await write()
        assert "wal" in synced
        assert any(name.startswith("open-") for name in synced)
    await index.close()


async def test_a_creation_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    await index.upsert(collection, [a_point(1)])
    await index.close()
    (tmp_path / collection.name / MARKER).unlink()

    index = EdgeIndex(tmp_path)
    with pytest.raises(IndexUnavailable, match="has no collection"):
        await index.count(collection)

    assert await index.ensure(collection)
    assert await index.count(collection) == 0
    await index.close()


async def test_a_collection_of_other_parameters_is_not_taken_for_this_one(tmp_path: Path) -> None:
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)

    with pytest.raises(IndexUnavailable, match="remove it to have it rebuilt"):
        await index.ensure(replace(collection, distance=Distance.DOT))

    await index.close()
    marker = json.loads((tmp_path / collection.name / MARKER).read_text())
    assert marker["distance"] == "cosine"


async def test_a_damaged_shard_is_an_error_that_tells_what_is_wrong(tmp_path: Path) -> None:
    collection = a_collection()
    index = EdgeIndex(tmp_path)
    await index.ensure(collection)
    await index.close()
    [shard] = (tmp_path / collection.name).glob("shard-*")
    shutil.rmtree(shard / "segments")
    (shard / "edge_config.json").write_text("{")

    index = EdgeIndex(tmp_path)
    with pytest.raises(IndexUnavailable, match="the embedded index refused"):
        await index.search(collection, a_search())
    await index.close()


async def test_a_closed_index_refuses(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path)
    await index.ensure(a_collection())
    await index.close()
    await index.close()

    with pytest.raises(IndexUnavailable, match="closed"):
        await index.ping()


async def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    index = EdgeIndex(tmp_path / "file")

    with pytest.raises(IndexUnavailable, match="cannot use its directory"):
        await index.ping()
    await index.close()


def test_without_the_engine_the_way_to_install_it_is_told() -> None:
    program = "import sys; sys.modules['qdrant_edge'] = None; import ragver.index.edge"

    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert "NotInstalled" in outcome.stderr
    assert "pip install 'ragver[embedded]'" in outcome.stderr


async def test_a_reader_does_not_open_again_what_is_being_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index would go on holding an engine whose files are gone, and could not be closed."""
    index, collection = EdgeIndex(tmp_path / "index"), a_collection()
    await index.ensure(collection)
    await index.upsert(collection, [a_point(1)])
    close = edge_shard.Shard.close

    def close_and_read(shard: edge_shard.Shard) -> None:
        close(shard)
        with pytest.raises(IndexUnavailable, match="has no collection"):
            index._shard(collection)

    monkeypatch.setattr(edge_shard.Shard, "close", close_and_read)
    await index.drop(collection)
    await index.close()
