"""The embedded engine's own words: its configuration, its conditions, its records, its errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, overload

import numpy as np

from ragver.errors import IndexUnavailable, NotInstalled
from ragver.index.payload import Dialect
from ragver.index.port import Collection, StoredPoint
from ragver.types import ChunkId, Distance, FieldType

try:
    import qdrant_edge as edge
except ImportError as missing:
    raise NotInstalled(
        "the embedded index needs qdrant-edge-py: pip install 'ragver[embedded]', or set RAGVER_QDRANT_URL"
    ) from missing

__all__ = ["DIALECT", "SCHEMAS", "Payloads", "copy_points", "edge", "engine_config", "engine_errors", "stored_point"]

GRAPH_LINKS = 16
GRAPH_CANDIDATES = 100
FULL_SCAN_KB = 10_000
"""Where a filter leaves fewer vectors than this, they are all looked at: exact, and quicker than the graph."""

DISTANCES = {
    Distance.COSINE: edge.Distance.Cosine,
    Distance.DOT: edge.Distance.Dot,
    Distance.EUCLID: edge.Distance.Euclid,
    Distance.MANHATTAN: edge.Distance.Manhattan,
}
SCHEMAS = {
    FieldType.KEYWORD: edge.PayloadSchemaType.Keyword,
    FieldType.INTEGER: edge.PayloadSchemaType.Integer,
    FieldType.FLOAT: edge.PayloadSchemaType.Float,
    FieldType.DATETIME: edge.PayloadSchemaType.Datetime,
}
DIALECT: Dialect[Any] = Dialect(
    group=lambda must, should, must_not: edge.Filter(must or None, should or None, must_not or None),
    equals=lambda path, value: edge.FieldCondition(path, match=edge.MatchValue(value)),
    among=lambda path, values: edge.FieldCondition(path, match=edge.MatchAny(values)),
    numbers=lambda path, bounds: edge.FieldCondition(path, range=edge.RangeFloat(**bounds)),
    times=lambda path, bounds: edge.FieldCondition(path, range=edge.RangeDateTime(**bounds)),
    empty=edge.IsEmptyCondition,
)


def engine_config(collection: Collection) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=collection.dimensions, distance=DISTANCES[collection.distance]),
        hnsw_config=edge.HnswIndexConfig(GRAPH_LINKS, GRAPH_CANDIDATES, FULL_SCAN_KB, max_indexing_threads=1),
        # All that is there when a build begins belongs into the graph; without a build, nothing does.
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
    )


def copy_points(source: edge.EdgeShard, target: edge.EdgeShard, chunk_ids: Sequence[ChunkId]) -> None:
    records = source.retrieve(list(chunk_ids), True, True)
    if records:
        rows = [edge.Point(record.id, record.vector or [], record.payload or {}) for record in records]
        target.update(edge.UpdateOperation.upsert_points(rows))
    gone = set(chunk_ids) - {int(record.id) for record in records}
    if gone:
        target.update(edge.UpdateOperation.delete_points(sorted(gone)))


class Payloads(Sequence[Mapping[str, Any] | None]):
    """The payloads of records, each made when it is looked at: the garbage collector would go through a thousand
    that are kept, time and again, and take longer than the engine."""

    def __init__(self, records: Sequence[edge.Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any] | None: ...
    @overload
    def __getitem__(self, place: slice) -> Payloads: ...
    def __getitem__(self, place: int | slice) -> Mapping[str, Any] | Payloads | None:
        if isinstance(place, slice):
            return Payloads(self._records[place])
        return self._records[place].payload

    def __iter__(self) -> Iterator[Mapping[str, Any] | None]:
        return map(_payload_of, self._records)


_payload_of = attrgetter("payload")


def stored_point(record: edge.Record) -> StoredPoint:
    vector = None if record.vector is None else np.asarray(record.vector, dtype=np.float32)
    return StoredPoint(ChunkId(int(record.id)), record.payload or {}, vector)


@contextmanager
def engine_errors() -> Iterator[None]:
    """The engine raises plain ``Exception``, and after a panic a class that not even that catches."""
    try:
        yield
    except OSError as error:
        raise IndexUnavailable(f"the embedded index cannot use its directory: {error}") from error
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise IndexUnavailable(f"the embedded index refused: {error}") from error
        raise
