"""One embedded collection: its engine, its files, and how its graph comes to it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from ragver.errors import IndexUnavailable
from ragver.filters import Filter
from ragver.index.building import Build
from ragver.index.edge_engine import (
    DIALECT,
    SCHEMAS,
    Payloads,
    copy_points,
    edge,
    engine_config,
    stored_point,
)
from ragver.index.edge_files import MARKER, SHARD, mark, new_name, require_same, sync
from ragver.index.payload import (
    STAMP_ID,
    alike,
    as_matrix,
    changeable,
    death,
    deaths_by_epoch,
    fitting,
    indexed_fields,
    never_marked_dead,
    stamp_payload,
    stamp_vector,
    stored,
    touched_before,
    translate,
    visible,
)
from ragver.index.port import Collection, Match, Page, Payload, Point, Search, Stamp, StoredPoint
from ragver.index.scoring import normalised
from ragver.types import ChunkId, Epoch

BATCH_POINTS_MAX = 256
"""Points in one call of the engine, which holds the interpreter lock for some 2 ms with so many."""
UNFLUSHED_POINTS_MAX = 4_096
"""Points written since the last flush: what a start after a crash has to replay from the log at most."""
BUILD_POINTS_MIN = 20_000
"""Points outside the graph that are worth a build; a search looks at so many one by one in some 2 ms."""
BUILD_SHARE = 10
"""Nor is it worth one while the graph holds so many times more, or a growing collection would be built all day."""
BUILD_RETRY_S = 600.0
"""How long a shard whose build has failed does without."""
CARRY_POINTS_MAX = 4_096
"""Points carried over to the built shard before other writes get their turn."""
T = TypeVar("T")


class Shard:
    """One collection's engine. All methods block; the writing ones must not run side by side."""

    def __init__(self, path: Path, collection: Collection, shard: str) -> None:
        self._collection = collection
        self._path = path
        self._directory = path / shard
        self._engine = edge.EdgeShard.load(str(self._directory))
        self._swapping = Lock()
        """Held while the engine reads, so that it is not closed under a reader."""
        self._unflushed_points = 0
        self.building = False
        self._build: Build | None = None
        self._cancelled = False
        self._touched: set[int] = set()
        """The points written since the copy was made, and not carried over to it yet."""
        self._carried = 0
        self._retry_at_s = 0.0
        info = self._engine.info()
        self._in_graph = info.indexed_vectors_count
        self._outside_graph = max(0, info.points_count - self._in_graph)

    @staticmethod
    def create(path: Path, collection: Collection) -> None:
        """Make an empty shard. The marker comes last: without it, the directory does not count."""
        directory = path / new_name()
        _create_engine(directory, collection)
        mark(path, collection, directory.name)
        sync(path, path.parent)

    @staticmethod
    def open(path: Path, collection: Collection) -> Shard:
        """Open a shard that has been created for the same collection."""
        if not (path / MARKER).exists():
            raise IndexUnavailable(f"the index has no collection {collection.name}; the indexer creates it")
        shard = require_same(path, collection)
        for directory in path.glob(f"{SHARD}*"):
            if directory.name != shard:  # of a build or a swap that was interrupted
                shutil.rmtree(directory, ignore_errors=True)
        return Shard(path, collection, shard)

    def upsert(self, points: Sequence[Point]) -> None:
        for batch in _batches(points):
            rows = [
                edge.Point(point.chunk_id, fitting(self._collection, point.vector), stored(point.payload))
                for point in batch
            ]
            insert = edge.UpdateOperation.upsert_points(rows, update_mode=edge.UpdateMode.InsertOnly)
            self._update(insert, [point.chunk_id for point in batch])

    def mark_dead(self, deaths: Mapping[ChunkId, Epoch]) -> None:
        for epoch, chunk_ids in deaths_by_epoch(deaths):
            self._set_payload(chunk_ids, never_marked_dead(), death(epoch))

    def refresh_payload(self, payloads: Mapping[ChunkId, Payload]) -> None:
        for payload, chunk_ids in alike(payloads):
            self._set_payload(chunk_ids, touched_before(payload.touched_epoch), changeable(payload))

    def delete(self, chunk_ids: Sequence[ChunkId]) -> None:
        for batch in _batches(chunk_ids):
            self._update(edge.UpdateOperation.delete_points(list(batch)), batch)

    def search(self, search: Search) -> list[Match]:
        # The engine leaves very short vectors as they are; at unit length its scores are those of `scoring`.
        vector = fitting(self._collection, normalised(self._collection.distance, search.vector))
        with self._swapping:
            hits = self._nearest(vector, search, exact=False)
            if len(hits) < search.limit and self._in_graph:  # a walk along the graph may have missed some
                hits = self._nearest(vector, search, exact=True)
        return [Match(ChunkId(int(hit.id)), hit.score) for hit in hits]

    def _nearest(self, vector: list[float], search: Search, *, exact: bool) -> list[edge.ScoredPoint]:
        request = edge.SearchRequest(
            edge.Query.Nearest(vector),
            search.limit,
            filter=translate(visible(search), DIALECT),
            params=edge.SearchParams(exact=exact),
            with_vector=False,
            with_payload=False,
        )
        return list(self._engine.search(request))

    def scroll(self, after: ChunkId | None, limit: int, *, with_vectors: bool) -> list[StoredPoint]:
        return [stored_point(record) for record in self._records(after, limit, with_vectors)]

    def page(self, after: ChunkId | None, limit: int, *, with_vectors: bool) -> Page:
        records = self._records(after, limit, with_vectors)
        vectors = [record.vector for record in records] if with_vectors else None
        return Page(
            [int(record.id) for record in records],
            Payloads(records),
            None if vectors is None else as_matrix(self._collection, vectors),
        )

    def _records(self, after: ChunkId | None, limit: int, with_vectors: bool) -> list[edge.Record]:
        first = (STAMP_ID if after is None else after) + 1
        with self._swapping:
            records, _ = self._engine.scroll(edge.ScrollRequest(first, limit, None, True, with_vectors))
        return records

    def lookup(self, chunk_ids: Sequence[ChunkId], *, with_vectors: bool) -> list[StoredPoint]:
        with self._swapping:
            return [stored_point(record) for record in self._engine.retrieve(list(chunk_ids), True, with_vectors)]

    def count(self) -> int:
        with self._swapping:
            stamps = len(self._engine.retrieve([STAMP_ID], False, False))
            return self._engine.count(edge.CountRequest(exact=True)) - stamps

    def misfits(self) -> list[str]:
        return [f"the payload index on {field} is missing" for field in self._missing_indexes()]

    def complete_indexes(self) -> None:
        for field, schema in self._missing_indexes().items():
            self._engine.update(edge.UpdateOperation.create_field_index(field, schema))

    def _missing_indexes(self) -> dict[str, edge.PayloadSchemaType]:
        with self._swapping:
            there = self._engine.info().payload_schema
        wanted = {field: SCHEMAS[kind] for field, kind in indexed_fields(self._collection).items()}
        return {
            field: schema for field, schema in wanted.items() if field not in there or there[field].data_type != schema
        }

    def stamp(self, stamp: Stamp, *, replace: bool) -> None:
        payload = stamp_payload(stamp)
        mode = edge.UpdateMode.Upsert if replace else edge.UpdateMode.InsertOnly
        point = edge.Point(STAMP_ID, stamp_vector(self._collection), payload)
        self._update(edge.UpdateOperation.upsert_points([point], update_mode=mode), [STAMP_ID])
        self._set_payload([STAMP_ID], touched_before(stamp.epoch), payload)

    def make_durable(self) -> None:
        """Return when a power cut can no longer undo the updates so far.

        The engine's log is written through shared memory: that alone survives `kill -9`, but not a power cut,
        and the ledger's applied epoch would then promise what the index has lost. A flush of the engine takes
        5 to 9 ms with the interpreter locked, a sync of its log files 0.4 ms with it free; so flush rarely.
        """
        log = self._directory / "wal"
        if self._unflushed_points >= UNFLUSHED_POINTS_MAX or not log.is_dir():
            self._engine.flush()
            self._unflushed_points = 0
        else:
            for part in [*log.iterdir(), log]:
                with suppress(FileNotFoundError):  # an empty part that the engine is just renaming into place
                    sync(part)

    def close(self) -> None:
        self._engine.flush()
        self._engine.close()

    # Building the graph: one after the other, each by itself in the writer's thread.

    def deserves_build(self) -> bool:
        if self.building or self._cancelled or time.monotonic() < self._retry_at_s:
            return False
        return self._outside_graph >= max(BUILD_POINTS_MIN, self._in_graph // BUILD_SHARE)

    def begin_build(self) -> Build:
        """Copy the shard for the child. Writes wait meanwhile, reads do not."""
        self._build = Build(self._path / new_name())
        self._touched.clear()
        self._carried = 0
        if self._cancelled:
            self._build.cancel()
        self._build.check()
        self._engine.flush()
        shutil.copytree(self._directory, self._build.directory)
        return self._build

    def begin_compaction(self) -> Build:
        """Copy the shard, and make an empty one that the child fills with the points of the copy: what was deleted
        gets into neither its segments nor its log."""
        self.building = True
        build = self.begin_build()
        build.source = build.directory.with_name(f"{build.directory.name}-source")
        build.directory.rename(build.source)
        _create_engine(build.directory, self._collection)
        return build

    def carry_over(self, built: edge.EdgeShard) -> bool:
        """Bring what was written since to the built shard; when nothing is left, let it take this one's place.

        What is carried is a point's present state, so it does not matter how often or in which order it changed.
        """
        assert self._build is not None
        self._build.check()
        carried = [ChunkId(self._touched.pop()) for _ in range(min(CARRY_POINTS_MAX, len(self._touched)))]
        for batch in _batches(carried):
            copy_points(self._engine, built, batch)
        self._carried += len(carried)
        if self._touched:
            return False
        built.flush()
        self._swap(built, self._build.directory)
        return True

    def _swap(self, built: edge.EdgeShard, directory: Path) -> None:
        old_engine, old_directory = self._engine, self._directory
        mark(self._path, self._collection, directory.name)
        with self._swapping:
            self._engine, self._directory = built, directory
            info = built.info()
            self._in_graph = info.indexed_vectors_count
            # One that was only compacted may have no graph.
            self._outside_graph = max(self._carried, info.points_count - self._in_graph)
        self._unflushed_points = 0
        sync(self._path)
        old_engine.close()
        shutil.rmtree(old_directory, ignore_errors=True)

    def end_build(self, built: edge.EdgeShard | None) -> None:
        """Forget the build, and what came of it if that has not taken this shard's place."""
        if self._build is not None and self._build.directory != self._directory:
            if built is not None:
                built.close()
            self._retry_at_s = time.monotonic() + BUILD_RETRY_S
            shutil.rmtree(self._build.directory, ignore_errors=True)
        if self._build is not None and self._build.source is not None:
            shutil.rmtree(self._build.source, ignore_errors=True)
        self._build = None
        self._touched.clear()
        self.building = False

    def cancel_build(self) -> None:
        """From any thread: stop what runs, and begin nothing more."""
        self._cancelled = True
        build = self._build
        if build is not None:
            build.cancel()

    def _set_payload(self, chunk_ids: Sequence[ChunkId], where: Filter, change: dict[str, Any]) -> None:
        # By filter, since naming ids outright is an error when one of them is not there.
        for batch in _batches(chunk_ids):
            wanted = edge.Filter(must=[edge.HasIdCondition(set(batch)), translate(where, DIALECT)])
            self._update(edge.UpdateOperation.set_payload_by_filter(wanted, change), batch)

    def _update(self, operation: edge.UpdateOperation, chunk_ids: Sequence[ChunkId]) -> None:
        if self._build is not None:
            self._touched.update(chunk_ids)
        self._engine.update(operation)
        self._unflushed_points += len(chunk_ids)
        self._outside_graph += len(chunk_ids)  # a point of the graph that changes may move out of it


def _create_engine(directory: Path, collection: Collection) -> None:
    directory.mkdir(parents=True)
    engine = edge.EdgeShard.create(str(directory), engine_config(collection))
    for field, kind in indexed_fields(collection).items():
        engine.update(edge.UpdateOperation.create_field_index(field, SCHEMAS[kind]))
    engine.flush()
    engine.close()
    sync(directory)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_POINTS_MAX):
        yield items[start : start + BATCH_POINTS_MAX]
