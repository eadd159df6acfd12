"""The Qdrant engine in this process: one shard in a directory per collection.

The engine holds the interpreter lock to the end of every call. So writes go through one thread in small batches,
whose waits for the disk are then nobody else's, and searches are made where they are asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from ragver.errors import IndexUnavailable, NotInstalled
from ragver.filters import Filter
from ragver.index.payload import (
    Dialect,
    changeable,
    death,
    fitting,
    indexed_fields,
    never_marked_dead,
    stored,
    touched_before,
    translate,
    visible,
)
from ragver.index.port import Collection, Match, Payload, Point, Search, StoredPoint
from ragver.index.scoring import normalised
from ragver.types import ChunkId, Distance, Epoch, FieldType

try:
    import qdrant_edge as edge
except ImportError as missing:
    raise NotInstalled(
        "the embedded index needs qdrant-edge-py: pip install 'ragver[embedded]', or set RAGVER_QDRANT_URL"
    ) from missing

BATCH_POINTS_MAX = 256
"""Points in one call of the engine, which holds the interpreter lock for some 2 ms with so many."""
UNFLUSHED_POINTS_MAX = 4_096
"""Points written since the last flush: what a start after a crash has to replay from the log at most."""
READERS_MAX = 4
"""Threads that search and scroll."""

MARKER = "collection.json"
SHARD = "shard"

T = TypeVar("T")

_DISTANCES = {
    Distance.COSINE: edge.Distance.Cosine,
    Distance.DOT: edge.Distance.Dot,
    Distance.EUCLID: edge.Distance.Euclid,
    Distance.MANHATTAN: edge.Distance.Manhattan,
}
_SCHEMAS = {
    FieldType.KEYWORD: edge.PayloadSchemaType.Keyword,
    FieldType.INTEGER: edge.PayloadSchemaType.Integer,
    FieldType.FLOAT: edge.PayloadSchemaType.Float,
    FieldType.DATETIME: edge.PayloadSchemaType.Datetime,
}
_DIALECT: Dialect[Any] = Dialect(
    group=lambda must, should, must_not: edge.Filter(must or None, should or None, must_not or None),
    equals=lambda path, value: edge.FieldCondition(path, match=edge.MatchValue(value)),
    among=lambda path, values: edge.FieldCondition(path, match=edge.MatchAny(values)),
    numbers=lambda path, bounds: edge.FieldCondition(path, range=edge.RangeFloat(**bounds)),
    times=lambda path, bounds: edge.FieldCondition(path, range=edge.RangeDateTime(**bounds)),
    empty=edge.IsEmptyCondition,
)


class EdgeIndex:
    """The index port on ``qdrant-edge-py``. One process at a time may open a directory; its caller sees to that."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shards: dict[str, _Shard] = {}
        self._opening = Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ragver-edge-write")
        self._readers = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="ragver-edge-read")
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
        shard = self._shards.get(collection.name)
        if shard is None or self._closed:
            return await self._run(self._readers, lambda: self._shard(collection).search(search))
        # The engine keeps the interpreter lock for the whole of a search: in a thread it would stop the event
        # loop just as long, and two hand-overs of the lock would come on top.
        with _engine_errors():
            return shard.search(search)

    async def scroll(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return await self._run(
            self._readers, lambda: self._shard(collection).scroll(after, limit, with_vectors=with_vectors)
        )

    async def count(self, collection: Collection) -> int:
        return await self._run(self._readers, lambda: self._shard(collection).count())

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._writer, self._close)
        self._writer.shutdown(wait=False)

    async def _write(self, collection: Collection, change: Callable[[_Shard], None]) -> None:
        def apply() -> None:
            shard = self._shard(collection)
            change(shard)
            shard.make_durable()

        await self._run(self._writer, apply)

    async def _run(self, executor: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        def guarded() -> T:
            with _engine_errors():
                return call()

        if self._closed:
            raise IndexUnavailable("the embedded index has been closed")
        return await asyncio.get_running_loop().run_in_executor(executor, guarded)

    # From here on everything blocks and runs in one of the threads.

    def _path(self, collection: Collection) -> Path:
        return self._directory / collection.name

    def _shard(self, collection: Collection) -> _Shard:
        shard = self._shards.get(collection.name)
        if shard is not None:
            return shard
        with self._opening:
            if collection.name not in self._shards:
                self._shards[collection.name] = _Shard.open(self._path(collection), collection)
            return self._shards[collection.name]

    def _ensure(self, collection: Collection) -> bool:
        path = self._path(collection)
        created = not (path / MARKER).exists()
        if created:
            self._drop(collection)  # what an interrupted creation or removal has left
            _Shard.create(path, collection)
        _require_same(path, collection)
        self._shard(collection)
        return created

    def _drop(self, collection: Collection) -> None:
        path = self._path(collection)
        with self._opening:
            shard = self._shards.pop(collection.name, None)
        if shard is not None:
            shard.close()
        if path.exists():
            (path / MARKER).unlink(missing_ok=True)  # first, so that a half-removed shard is never opened
            shutil.rmtree(path)

    def _close(self) -> None:
        self._readers.shutdown(wait=True)
        with _engine_errors():
            while self._shards:
                self._shards.popitem()[1].close()


class _Shard:
    """One collection's engine. All methods block; the writing ones must not run side by side."""

    def __init__(self, path: Path, collection: Collection) -> None:
        self._collection = collection
        self._log = path / SHARD / "wal"
        self._engine = edge.EdgeShard.load(str(path / SHARD))
        self._unflushed_points = 0

    @staticmethod
    def create(path: Path, collection: Collection) -> None:
        """Make an empty shard. The marker comes last: without it, the directory does not count."""
        path.mkdir(parents=True)
        vectors = edge.EdgeVectorParams(size=collection.dimensions, distance=_DISTANCES[collection.distance])
        engine = edge.EdgeShard.create(str(path / SHARD), edge.EdgeConfig(vectors=vectors))
        for field, kind in indexed_fields(collection).items():
            engine.update(edge.UpdateOperation.create_field_index(field, _SCHEMAS[kind]))
        engine.flush()
        engine.close()
        draft = path / f"{MARKER}.draft"
        draft.write_text(json.dumps(_description(collection)))
        _sync(draft, path / SHARD)
        draft.rename(path / MARKER)
        _sync(path, path.parent)

    @staticmethod
    def open(path: Path, collection: Collection) -> _Shard:
        """Open a shard that has been created for the same collection."""
        if not (path / MARKER).exists():
            raise IndexUnavailable(f"the index has no collection {collection.name}; the indexer creates it")
        _require_same(path, collection)
        return _Shard(path, collection)

    def upsert(self, points: Sequence[Point]) -> None:
        for batch in _batches(points):
            rows = [
                edge.Point(point.chunk_id, fitting(self._collection, point.vector), stored(point.payload))
                for point in batch
            ]
            insert = edge.UpdateOperation.upsert_points(rows, update_mode=edge.UpdateMode.InsertOnly)
            self._update(insert, len(rows))

    def mark_dead(self, deaths: Mapping[ChunkId, Epoch]) -> None:
        by_epoch: dict[Epoch, list[ChunkId]] = {}
        for chunk_id, epoch in deaths.items():
            by_epoch.setdefault(epoch, []).append(chunk_id)
        for epoch, chunk_ids in by_epoch.items():
            self._set_payload(chunk_ids, never_marked_dead(), death(epoch))

    def refresh_payload(self, payloads: Mapping[ChunkId, Payload]) -> None:
        # A change of access or metadata gives all chunks of a document the same payload: one update for them.
        alike: dict[str, tuple[Payload, list[ChunkId]]] = {}
        for chunk_id, payload in payloads.items():
            same = json.dumps(changeable(payload), sort_keys=True)
            alike.setdefault(same, (payload, []))[1].append(chunk_id)
        for payload, chunk_ids in alike.values():
            self._set_payload(chunk_ids, touched_before(payload.touched_epoch), changeable(payload))

    def delete(self, chunk_ids: Sequence[ChunkId]) -> None:
        for batch in _batches(chunk_ids):
            self._update(edge.UpdateOperation.delete_points(list(batch)), len(batch))

    def search(self, search: Search) -> list[Match]:
        # The engine leaves very short vectors as they are; at unit length its scores are those of `scoring`.
        vector = fitting(self._collection, normalised(self._collection.distance, search.vector))
        request = edge.SearchRequest(
            edge.Query.Nearest(vector),
            search.limit,
            filter=translate(visible(search), _DIALECT),
            with_vector=False,
            with_payload=False,
        )
        return [Match(ChunkId(int(hit.id)), hit.score) for hit in self._engine.search(request)]

    def scroll(self, after: ChunkId | None, limit: int, *, with_vectors: bool) -> list[StoredPoint]:
        first = None if after is None else after + 1
        request = edge.ScrollRequest(first, limit, with_payload=True, with_vector=with_vectors)
        records, _ = self._engine.scroll(request)
        return [_stored_point(record) for record in records]

    def count(self) -> int:
        return self._engine.count(edge.CountRequest(exact=True))

    def make_durable(self) -> None:
        """Return when a power cut can no longer undo the updates so far.

        The engine's log is written through shared memory: that alone survives `kill -9`, but not a power cut,
        and the ledger's applied epoch would then promise what the index has lost. A flush of the engine takes
        5 to 9 ms with the interpreter locked, a sync of its log files 0.4 ms with it free; so flush rarely.
        """
        if self._unflushed_points >= UNFLUSHED_POINTS_MAX or not self._log.is_dir():
            self._engine.flush()
            self._unflushed_points = 0
        else:
            for part in [*self._log.iterdir(), self._log]:
                with suppress(FileNotFoundError):  # an empty part that the engine is just renaming into place
                    _sync(part)

    def close(self) -> None:
        self._engine.flush()
        self._engine.close()

    def _set_payload(self, chunk_ids: Sequence[ChunkId], where: Filter, change: dict[str, Any]) -> None:
        # By filter, since naming ids outright is an error when one of them is not there.
        for batch in _batches(chunk_ids):
            wanted = edge.Filter(must=[edge.HasIdCondition(set(batch)), translate(where, _DIALECT)])
            self._update(edge.UpdateOperation.set_payload_by_filter(wanted, change), len(batch))

    def _update(self, operation: edge.UpdateOperation, points: int) -> None:
        self._engine.update(operation)
        self._unflushed_points += points


def _require_same(path: Path, collection: Collection) -> None:
    found = json.loads((path / MARKER).read_text())
    if found != _description(collection):
        raise IndexUnavailable(f"{path} holds {found}, not {_description(collection)}; remove it to have it rebuilt")


def _description(collection: Collection) -> dict[str, Any]:
    return {
        "dimensions": collection.dimensions,
        "distance": str(collection.distance),
        "filterable": {field: str(kind) for field, kind in collection.filterable.items()},
    }


def _stored_point(record: edge.Record) -> StoredPoint:
    vector = None if record.vector is None else np.asarray(record.vector, dtype=np.float32)
    return StoredPoint(ChunkId(int(record.id)), record.payload or {}, vector)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_POINTS_MAX):
        yield items[start : start + BATCH_POINTS_MAX]


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _engine_errors() -> Iterator[None]:
    """The engine raises plain ``Exception``, and after a panic a class that not even that catches."""
    try:
        yield
    except OSError as error:
        raise IndexUnavailable(f"the embedded index cannot use its directory: {error}") from error
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise IndexUnavailable(f"the embedded index refused: {error}") from error
        raise
