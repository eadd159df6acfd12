"""A whole comparison of ledger and index, from 10,000 chunks up, beside the bare scroll of the engine in the same run.

The ledger's rows are made by the database itself and the points written straight into the index; the vectors are
short, since without `--verify-vectors` only a sample of them is read. A document has ten chunks; one chunk in twenty
is dead. What is timed is a run as the API begins it: the second look at a sample with its vectors, the checkpoints and
its row included. Only the searches for a sample are left out: the embedded index builds no graph here, which would
take one of the processors for minutes, and without it each search looks at every point.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import psutil
import qdrant_edge
from pydantic import SecretStr
from sqlalchemy import text

from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.collection import collection_of
from ragver.index import edge_shard
from ragver.index.edge import EdgeIndex
from ragver.index.port import Collection, Payload, Point
from ragver.ledger import corpora
from ragver.reconciler import sampling
from ragver.settings import Settings
from ragver.types import ChunkId, DocumentId, Epoch

CORPUS = "bench"
CHUNKS_PER_DOCUMENT = 10
DEAD_EVERY = 20
EPOCH_BORN, EPOCH_DIED = 5, 7
CHUNK_ID_FIRST = 100_001
WRITE_POINTS = 10_000
SCROLL_POINTS = 500
WAIT_S = 600.0
ROUNDS = 3
TITLES = ("chunks", "points/s", "of scroll", "per CPU s", "of scroll", "MB more")
LOOK_S = 0.02

_DOCUMENTS = """
    INSERT INTO document (corpus_id, id, key, version, alive, acl, metadata, touched_epoch, metadata_epoch)
    SELECT {corpus}, i, 'page-' || i, 1, true, '["*"]', '{{}}', {born}, 0 FROM generate_series({first}, {last}) i
"""
_VERSIONS = """
    INSERT INTO document_version (corpus_id, document_id, version, key, born_epoch, died_epoch, cause, metadata, acl,
                                  chunk_ids)
    SELECT {corpus}, i, 1, 'page-' || i, {born}, {died}, 'superseded', '{{}}', '["*"]', '{{}}'
    FROM generate_series({first}, {last}) i
"""
_CHUNKS = """
    INSERT INTO chunk (corpus_id, id, document_id, content_hash, text, born_epoch, died_epoch, cause, touched_epoch)
    SELECT {corpus}, {id_first} + i, i / {per_document}, '\\x00', 'text', {born},
           CASE WHEN i % {dead_every} = 0 THEN {died} END, CASE WHEN i % {dead_every} = 0 THEN 'superseded' END,
           CASE WHEN i % {dead_every} = 0 THEN {died} ELSE {born} END
    FROM generate_series({first}, {last}) i
"""
_VECTORS = """
    INSERT INTO embedding (corpus_id, generation_id, chunk_id, vector)
    SELECT {corpus}, {generation}, {id_first} + i, CAST(:vector AS bytea) FROM generate_series({first}, {last}) i
"""
_APPLIED = ("UPDATE corpus SET epoch = 9", "UPDATE index_generation SET applied_epoch = 9", "VACUUM ANALYZE")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round at one size."""

    chunks: int
    points_per_s: float
    points_per_cpu_s: float
    """By the processor time of this process alone: on a busy machine the better measure."""
    scroll_per_s: float
    scroll_per_cpu_s: float
    extra_mb: float
    """The most memory during the run, over what the process held before it."""


class Bench:
    def __init__(self, services: Services, info: corpora.CorpusInfo, dimensions: int) -> None:
        self._services = services
        self._info = info
        self._collection: Collection = collection_of(info)
        self._vector = np.full(dimensions, dimensions**-0.5, dtype=np.float32)
        self._made = 0

    async def grow(self, chunks: int) -> None:
        """Have so many chunks in both stores."""
        await self._grow_ledger(chunks)
        for first in range(self._made, chunks, WRITE_POINTS):
            points = [self._point(number) for number in range(first, min(chunks, first + WRITE_POINTS))]
            await self._services.index.upsert(self._collection, points)
        self._made = chunks

    async def _grow_ledger(self, chunks: int) -> None:
        numbers = {
            "corpus": self._info.corpus_id,
            "generation": self._info.generation.generation_id,
            "born": EPOCH_BORN,
            "died": EPOCH_DIED,
            "id_first": CHUNK_ID_FIRST,
            "per_document": CHUNKS_PER_DOCUMENT,
            "dead_every": DEAD_EVERY,
        }
        documents = {"first": self._made // CHUNKS_PER_DOCUMENT, "last": chunks // CHUNKS_PER_DOCUMENT - 1}
        rows = {"first": self._made, "last": chunks - 1}
        vector = {"vector": self._vector.tobytes()}
        async with self._services.database.autocommit() as connection:
            for statement in (_DOCUMENTS, _VERSIONS):
                await connection.fetch(text(statement.format(**numbers, **documents)))
            await connection.fetch(text(_CHUNKS.format(**numbers, **rows)))
            await connection.fetch(text(_VECTORS.format(**numbers, **rows)), vector)
            for statement in _APPLIED:
                await connection.fetch(text(statement))

    def _point(self, number: int) -> Point:
        dead = number % DEAD_EVERY == 0
        payload = Payload(
            DocumentId(number // CHUNKS_PER_DOCUMENT),
            Epoch(EPOCH_BORN),
            Epoch(EPOCH_DIED) if dead else None,
            Epoch(EPOCH_DIED if dead else EPOCH_BORN),
            ["*"],
            {},
        )
        return Point(ChunkId(CHUNK_ID_FIRST + number), self._vector, payload)

    async def measure(self) -> Measured:
        gc.collect()
        scroll_s, scroll_cpu_s = self._scroll()
        async with _memory() as peak:
            before_s, before_cpu_s = time.perf_counter(), time.process_time()
            told = await self._services.reconciler.start(CORPUS, wire.ReconciliationRequest(), WAIT_S)
            took_s, took_cpu_s = time.perf_counter() - before_s, time.process_time() - before_cpu_s
        assert (told.points, told.drift) == (self._made, 0), told
        return Measured(
            self._made,
            self._made / took_s,
            self._made / took_cpu_s,
            self._made / scroll_s,
            self._made / scroll_cpu_s,
            peak.extra_mb,
        )

    def _scroll(self) -> tuple[float, float]:
        """The engine alone, every payload looked at; in seconds, and in seconds of processor time."""
        index = self._services.index
        assert isinstance(index, EdgeIndex)
        engine = index._shard(self._collection)._engine
        before_s, before_cpu_s = time.perf_counter(), time.process_time()
        after: int | UUID | str | None = None
        while True:
            records, after = engine.scroll(qdrant_edge.ScrollRequest(after, SCROLL_POINTS, None, True, False))
            for record in records:
                _ = record.payload
            if after is None:
                return time.perf_counter() - before_s, time.process_time() - before_cpu_s


@dataclass(slots=True)
class _Peak:
    extra_mb: float = 0.0


@asynccontextmanager
async def _memory() -> AsyncIterator[_Peak]:
    """Watches the memory of this process until the end of the block."""
    process, peak = psutil.Process(os.getpid()), _Peak()
    idle = process.memory_info().rss

    async def watch() -> None:
        while True:
            peak.extra_mb = max(peak.extra_mb, (process.memory_info().rss - idle) / 2**20)
            await asyncio.sleep(LOOK_S)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()


async def bench(sizes: list[int], dimensions: int) -> None:
    edge_shard.BUILD_POINTS_MIN = 2 * max(sizes)
    sampling.SEARCHED_POINTS = 0
    with tempfile.TemporaryDirectory(prefix="ragver-bench-") as directory:
        settings = Settings(
            data_dir=Path(directory) / ".ragver", database_url=None, qdrant_url=None, secret_key=SecretStr("bench")
        )
        async with open_services(settings, role="benchmark", indexing=False) as services:
            embedding = wire.Embedding(provider="external", dimensions=dimensions)
            await services.catalog.create(wire.CorpusCreate(name=CORPUS, embedding=embedding))
            info = await corpora.get(services.database, CORPUS)
            await services.index.ensure(collection_of(info))
            measured = Bench(services, info, dimensions)
            print(
                f"{'chunks':>10} {'points/s':>10} {'of scroll':>10} {'per CPU s':>10} {'of scroll':>10} {'MB more':>8}"
            )
            for size in sizes:
                await measured.grow(size)
                for _ in range(ROUNDS):
                    _show(await measured.measure())
    most_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory of this process, the embedded index and all: {most_mb:,.0f} MB")


def _show(one: Measured) -> None:
    print(
        f"{one.chunks:>11,}{one.points_per_s:>11,.0f}{one.points_per_s / one.scroll_per_s:>11.2f}"
        f"{one.points_per_cpu_s:>11,.0f}{one.points_per_cpu_s / one.scroll_per_cpu_s:>11.2f}{one.extra_mb:>11,.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="multiples of 20")
    parser.add_argument("--dimensions", type=int, default=4)
    given = parser.parse_args()
    asyncio.run(bench(sorted(given.sizes), given.dimensions))


if __name__ == "__main__":
    main()
