"""The Qdrant engine in this process: one shard in a directory per collection.

The engine holds the interpreter lock to the end of every call. So writes go through one thread in small batches,
whose waits for the disk are then nobody else's, and searches are made where they are asked for.

Points are searched one by one until there are many; then a child process builds the HNSW graph on a copy of the
shard. Which points are written meanwhile is remembered, and their state carried over to the copy, which then takes
the shard's place: the marker names the directory that counts. Whatever else lies there is removed at the next start.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

from ragver.errors import IndexUnavailable
from ragver.index.building import Build, BuildCancelled, BuildFailed
from ragver.index.edge_engine import (
    edge,
    engine_errors,
)
from ragver.index.edge_files import MARKER, require_same
from ragver.index.edge_shard import BUILD_RETRY_S, Shard
from ragver.index.payload import (
    STAMP_ID,
    read_stamp,
)
from ragver.index.port import Collection, Match, Page, Payload, Point, Search, Stamp, StoredPoint
from ragver.telemetry import logger
from ragver.types import ChunkId, Epoch

READERS_MAX = 4
"""Threads that search and scroll."""

T = TypeVar("T")


class EdgeIndex:
    """The index port on ``qdrant-edge-py``. One process at a time may open a directory; its caller sees to that."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shards: dict[str, Shard] = {}
        self._opening = Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ragver-edge-write")
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="ragver-edge-read")
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="ragver-edge-build")
        self._closed = False

    async def ping(self) -> None:
        await self._run(self._readers, lambda: self._directory.mkdir(parents=True, exist_ok=True))

    async def exists(self, collection: Collection) -> bool:
        return await self._run(self._readers, (self._path(collection) / MARKER).exists)

    async def ensure(self, collection: Collection) -> bool:
        return await self._run(self._writer, lambda: self._ensure(collection))

    async def drop(self, collection: Collection) -> None:
        await self._run(self._writer, lambda: self._drop(collection))

    async def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        await self._write(collection, lambda shard: shard.upsert(points))

    async def mark_dead(self, collection: Collection, deaths: Mapping[ChunkId, Epoch]) -> None:
        await self._write(collection, lambda shard: shard.mark_dead(deaths))

    async def refresh_payload(self, collection: Collection, payloads: Mapping[ChunkId, Payload]) -> None:
        await self._write(collection, lambda shard: shard.refresh_payload(payloads))

    async def delete(self, collection: Collection, chunk_ids: Sequence[ChunkId]) -> None:
        await self._write(collection, lambda shard: shard.delete(chunk_ids))

    async def search(self, collection: Collection, search: Search) -> list[Match]:
        return await self._read(collection, lambda shard: shard.search(search))

    async def scroll(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return await self._run(
            self._readers, lambda: self._shard(collection).scroll(after, limit, with_vectors=with_vectors)
        )

    async def page(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> Page:
        return await self._read(collection, lambda shard: shard.page(after, limit, with_vectors=with_vectors))

    async def lookup(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return await self._run(
            self._readers, lambda: self._shard(collection).lookup(chunk_ids, with_vectors=with_vectors)
        )

    async def misfits(self, collection: Collection) -> list[str]:
        def compared() -> list[str]:
            require_same(self._path(collection), collection)
            return self._shard(collection).misfits()

        return await self._run(self._readers, compared)

    async def compact(self, collection: Collection) -> None:
        await self._run(self._builder, lambda: self._compact(collection))

    async def stamp(self, collection: Collection, stamp: Stamp, *, replace: bool = False) -> None:
        await self._write(collection, lambda shard: shard.stamp(stamp, replace=replace))

    async def stamped(self, collection: Collection) -> Stamp | None:
        return read_stamp(await self.lookup(collection, [STAMP_ID]))

    async def count(self, collection: Collection) -> int:
        return await self._run(self._readers, lambda: self._shard(collection).count())

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._stop_builds)  # before the writer stops, which a build hands its parts to
        await asyncio.get_running_loop().run_in_executor(self._writer, self._close)
        self._writer.shutdown(wait=False)

    async def _read(self, collection: Collection, call: Callable[[Shard], T]) -> T:
        """For short reads. The engine keeps the interpreter lock for the whole of one: in a thread it would stop the
        event loop just as long, and two hand-overs of the lock would come on top."""
        shard = self._shards.get(collection.name)
        if shard is None or self._closed:
            return await self._run(self._readers, lambda: call(self._shard(collection)))
        with engine_errors():
            return call(shard)

    async def _write(self, collection: Collection, change: Callable[[Shard], None]) -> None:
        def apply() -> None:
            shard = self._shard(collection)
            change(shard)
            shard.make_durable()
            self._consider_build(shard)

        await self._run(self._writer, apply)

    async def _run(self, executor: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        def guarded() -> T:
            with engine_errors():
                return call()

        if self._closed:
            raise IndexUnavailable("the embedded index has been closed")
        return await asyncio.get_running_loop().run_in_executor(executor, guarded)

    # From here on everything blocks and runs in one of the threads.

    def _path(self, collection: Collection) -> Path:
        return self._directory / collection.name

    def _shard(self, collection: Collection) -> Shard:
        shard = self._shards.get(collection.name)
        if shard is not None:
            return shard
        with self._opening:
            if collection.name not in self._shards:
                self._shards[collection.name] = Shard.open(self._path(collection), collection)
            return self._shards[collection.name]

    def _ensure(self, collection: Collection) -> bool:
        path = self._path(collection)
        created = not (path / MARKER).exists()
        if created:
            self._drop(collection)  # what an interrupted creation or removal has left
            Shard.create(path, collection)
        require_same(path, collection)
        shard = self._shard(collection)
        shard.complete_indexes()
        self._consider_build(shard)
        return created

    def _drop(self, collection: Collection) -> None:
        path = self._path(collection)
        with self._opening:
            shard = self._shards.pop(collection.name, None)
            # First, so that nobody opens a half-removed shard: no later start, and no reader in another thread.
            (path / MARKER).unlink(missing_ok=True)
        if shard is not None:
            shard.cancel_build()
            shard.close()
        if path.exists():
            shutil.rmtree(path)

    def _consider_build(self, shard: Shard) -> None:
        if not self._closed and shard.deserves_build():
            shard.building = True
            with suppress(RuntimeError):  # it is being closed
                self._builder.submit(self._build, shard)

    def _build(self, shard: Shard) -> None:
        try:
            self._rebuild(shard, shard.begin_build)
        except BuildCancelled:
            logger.info("index_build_cancelled")
        except Exception as error:  # noqa: BLE001 - searches do without the graph, only slower
            logger.warning("index_build_failed", error=str(error), retry_s=BUILD_RETRY_S)

    def _compact(self, collection: Collection) -> None:
        shard = self._shard(collection)
        try:
            self._rebuild(shard, shard.begin_compaction)
        except (BuildCancelled, BuildFailed) as error:
            raise IndexUnavailable(
                f"{collection.name} could not be compacted: {error or 'it is being closed'}"
            ) from error

    def _rebuild(self, shard: Shard, begin: Callable[[], Build]) -> None:
        """In the builder's thread; what touches the live shard goes through the writer's."""
        started_s = time.monotonic()
        built: edge.EdgeShard | None = None
        try:
            with engine_errors():
                build = self._writer.submit(begin).result()
                build.run()
                built = edge.EdgeShard.load(str(build.directory))
                while not self._writer.submit(shard.carry_over, built).result():
                    pass
            logger.info("index_built", path=str(build.directory), seconds=round(time.monotonic() - started_s, 1))
        finally:
            self._writer.submit(shard.end_build, built).result()

    def _stop_builds(self) -> None:
        with self._opening:
            shards = list(self._shards.values())
        for shard in shards:
            shard.cancel_build()
        self._builder.shutdown(wait=True)

    def _close(self) -> None:
        self._readers.shutdown(wait=True)
        with engine_errors():
            while self._shards:
                self._shards.popitem()[1].close()
