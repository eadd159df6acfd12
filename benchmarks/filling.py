"""Corpora of any size, quickly: the ledger's own statement and the product's own indexer, without parsing requests."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from benchmarks.vectors import DIMENSIONS
from ragver import wire
from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.collection import collection_of
from ragver.index import edge_shard
from ragver.index.edge import EdgeIndex
from ragver.indexer import Indexer
from ragver.ledger import commits, tables
from ragver.ledger.commits import Record
from ragver.ledger.plan import Piece, PreparedPut, plan
from ragver.telemetry import Metrics

CHUNKS_PER_DOCUMENT = 10
DOCUMENTS_PER_COMMIT = 1_000
BUILDS_AT_A_TIME = 2
FILLER = "All of it is filler. " * 30


async def create(services: Services, name: str) -> None:
    """An empty corpus for vectors of `vectors.clustered`."""
    embedding = wire.Embedding(provider="external", dimensions=DIMENSIONS)
    await services.catalog.create(wire.CorpusCreate(name=name, embedding=embedding))


async def put_all(services: Services, corpus: str, vectors: NDArray[np.float32], first: int = 0) -> None:
    """Documents of ten chunks each, many in a commit; chunk `n` has the vector `n - first`."""
    per_commit = CHUNKS_PER_DOCUMENT * DOCUMENTS_PER_COMMIT
    for start in range(0, len(vectors), per_commit):
        part = vectors[start : start + per_commit]
        puts = [
            _put(first + start + offset, part[offset : offset + CHUNKS_PER_DOCUMENT])
            for offset in range(0, len(part), CHUNKS_PER_DOCUMENT)
        ]
        await _commit(services, corpus, puts)
        await services.writer._growth.add(len(part))


def _put(number: int, vectors: NDArray[np.float32]) -> PreparedPut:
    pieces = [Piece(f"Passage {number + place}. {FILLER}", vector) for place, vector in enumerate(vectors)]
    chunks = [wire.ChunkInput.model_construct(text=piece.text, vector=None) for piece in pieces]
    put = wire.Put.model_construct(
        op="put",
        key=key_of(number),
        text=None,
        chunks=chunks,
        title=None,
        uri=None,
        metadata={},
        acl=["*"],
        if_version=None,
    )
    return PreparedPut(put, pieces, [piece.content_hash for piece in pieces])


def key_of(number: int) -> str:
    """The document of chunk `number`."""
    return f"documents/{number // CHUNKS_PER_DOCUMENT}.md"


async def _commit(services: Services, corpus: str, puts: Sequence[PreparedPut]) -> None:
    info = (await services.views.get(corpus)).info
    pieces = [(hash_, piece) for put in puts for hash_, piece in zip(put.hashes, put.pieces, strict=True)]
    vectors = {hash_: piece.vector for hash_, piece in pieces if piece.vector is not None}
    record = Record(None, None, None, hashlib.sha256(b"benchmark").digest())
    async with services.database.autocommit() as connection:
        before = await commits.read_before(connection, info.corpus_id, [put.put.key for put in puts], with_hashes=True)
        plans = plan(puts, before.documents, before.newest_versions, info.filterable)
        assert await commits.write(connection, info.corpus_id, before, plans, vectors, record)


async def delete_all(services: Services, corpus: str, numbers: Sequence[int]) -> None:
    """Delete the documents of these chunks, many in a commit."""
    keys = sorted({key_of(number) for number in numbers})
    for start in range(0, len(keys), DOCUMENTS_PER_COMMIT):
        operations = [wire.Delete(op="delete", key=key) for key in keys[start : start + DOCUMENTS_PER_COMMIT]]
        await services.writer.commit(corpus, wire.CommitRequest(ops=operations))


async def indexed(services: Services, corpora: Sequence[str]) -> None:
    """Let an indexer work until the index holds everything of these corpora; builds no graph."""
    with _graphs(points_min=sys.maxsize):
        running = asyncio.create_task(
            Indexer(services.database, services.index, services.builder, SystemClock(), 0.05, Metrics()).run()
        )
        for corpus in corpora:
            while (now := await services.catalog.corpus(corpus)).applied_epoch < now.head:  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.5)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def graphs_built(services: Services, corpora: Sequence[str]) -> None:
    """Build the graphs of those collections that are big enough for one, as the index does, but two at a time."""
    index = services.index
    assert isinstance(index, EdgeIndex)
    index._builder = ThreadPoolExecutor(BUILDS_AT_A_TIME)
    shards = [index._shard(collection_of((await services.views.get(corpus)).info)) for corpus in corpora]
    for shard in sorted(shards, key=lambda shard: -shard.count()):
        index._writer.submit(index._consider_build, shard).result()
    while any(shard.building for shard in shards):  # noqa: ASYNC110 - polled
        await asyncio.sleep(0.5)


@contextmanager
def _graphs(points_min: int) -> Iterator[None]:
    usual, edge_shard.BUILD_POINTS_MIN = edge_shard.BUILD_POINTS_MIN, points_min
    try:
        yield
    finally:
        edge_shard.BUILD_POINTS_MIN = usual


async def copied(services: Services, source: str, name: str) -> None:
    """A corpus with the same history under another name, chunk ids included. Both search the same collection, so
    nothing may be indexed from now on."""
    await create(services, name)
    ours, theirs = (await services.views.get(name)).info, (await services.views.get(source)).info
    replaced = {"corpus_id": ours.corpus_id, "generation_id": ours.generation.generation_id}
    async with services.database.transaction() as connection:
        for table in (tables.commit_log, tables.document, tables.document_version, tables.chunk, tables.embedding):
            columns = ", ".join(column.name for column in table.columns)
            values = ", ".join(str(replaced.get(column.name, column.name)) for column in table.columns)
            await connection.fetch(
                text(
                    f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM {table.name} WHERE corpus_id = :source"
                ),
                {"source": theirs.corpus_id},
            )
        for statement in _SAME_PLACE:
            await connection.fetch(statement, {"ours": ours.corpus_id, "theirs": theirs.corpus_id})
    services.views.forget(name)


# A collection belongs to one generation everywhere but here.
_SAME_PLACE = (
    text("ALTER TABLE index_generation DROP CONSTRAINT IF EXISTS index_generation_collection_key"),
    text("""
        UPDATE corpus SET epoch = source.epoch, payload_epoch = source.payload_epoch,
            last_committed_at = source.last_committed_at
        FROM corpus AS source WHERE corpus.id = :ours AND source.id = :theirs
    """),
    text("""
        UPDATE index_generation AS g SET collection = source.collection, applied_epoch = source.applied_epoch
        FROM index_generation AS source WHERE g.corpus_id = :ours AND source.corpus_id = :theirs
    """),
)


async def living(services: Services, corpus: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and vectors of the chunks that live at the head, read past the product."""
    info = (await services.views.get(corpus)).info
    async with services.database.autocommit() as connection:
        rows = await connection.fetch(_LIVING, {"corpus": info.corpus_id})
    ids = np.fromiter((row.id for row in rows), np.int64, len(rows))
    return ids, np.frombuffer(b"".join(row.vector for row in rows), "<f4").reshape(len(rows), DIMENSIONS)


_LIVING = text("""
    SELECT k.id, e.vector FROM chunk k JOIN embedding e ON e.corpus_id = k.corpus_id AND e.chunk_id = k.id
    WHERE k.corpus_id = :corpus AND k.died_epoch IS NULL
""")
