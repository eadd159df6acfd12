"""The vectors of a generation that is not the one commits write to.

They are added while commits, retention and erasures go on. So a vector is only ever added under a lock of its chunk
that sees the chunk's text still there, and under a lock of its generation that sees it not retired: whoever removes
either comes before, and nothing is added, or after, and removes the vector too. Chunks that a commit holds just now
are left for the next time; waiting for them could make the commit wait in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from ragver.ledger.database import Connection, Database
from ragver.types import ChunkId, CorpusId, GenerationId


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A chunk that a generation has no vector of."""

    chunk_id: ChunkId
    content_hash: bytes
    text: str


# The generation is there and stays until the transaction ends.
_HOLD = text("""
    SELECT 1 FROM index_generation
    WHERE corpus_id = :corpus AND id = :generation AND state <> 'retired' FOR SHARE
""")

# The vectors that another generation with the same embedding has of these chunks.
_COPY = text("""
    WITH k AS MATERIALIZED (
        SELECT id FROM chunk WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[])) AND text IS NOT NULL
        FOR SHARE SKIP LOCKED
    )
    INSERT INTO embedding (corpus_id, generation_id, chunk_id, vector)
    SELECT :corpus, :generation, k.id, e.vector
    FROM k
    JOIN index_generation own ON own.corpus_id = :corpus AND own.id = :generation
    JOIN index_generation other ON other.corpus_id = :corpus AND other.id <> own.id
        AND other.state <> 'retired' AND other.embedding = own.embedding
    CROSS JOIN LATERAL (
        SELECT vector FROM embedding
        WHERE corpus_id = :corpus AND generation_id = other.id AND chunk_id = k.id LIMIT 1
    ) e
    ON CONFLICT DO NOTHING
""")

# Which of these chunks still have a text and no vector.
_AWAITING = text("""
    SELECT k.id, k.content_hash, k.text FROM chunk k
    WHERE k.corpus_id = :corpus AND k.id = ANY(CAST(:ids AS bigint[])) AND k.text IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM embedding WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id = k.id
    )
    ORDER BY k.id
""")

# New vectors, of those chunks that still have a text.
_ADD = text("""
    WITH k AS MATERIALIZED (
        SELECT id FROM chunk WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[])) AND text IS NOT NULL
        FOR SHARE SKIP LOCKED
    )
    INSERT INTO embedding (corpus_id, generation_id, chunk_id, vector)
    SELECT :corpus, :generation, made.id, made.vector
    FROM unnest(CAST(:ids AS bigint[]), CAST(:vectors AS bytea[])) AS made(id, vector) JOIN k ON k.id = made.id
    ON CONFLICT DO NOTHING
""")


async def copy(database: Database, corpus: CorpusId, generation: GenerationId, ids: Sequence[ChunkId]) -> None:
    """Give these chunks the vectors that another generation with the same embedding has of them, if one has."""
    key = {"corpus": corpus, "generation": generation}
    async with database.transaction() as connection:
        if await _held(connection, corpus, generation):
            await connection.fetch(_COPY, {**key, "ids": list(ids)})


async def awaiting(
    database: Database, corpus: CorpusId, generation: GenerationId, ids: Sequence[ChunkId]
) -> list[Awaiting]:
    """Those of these chunks that the generation has no vector of and whose text is still there."""
    rows = await database.fetch(_AWAITING, {"corpus": corpus, "generation": generation, "ids": list(ids)})
    return [Awaiting(ChunkId(row.id), row.content_hash, row.text) for row in rows]


async def add(
    database: Database, corpus: CorpusId, generation: GenerationId, made: dict[ChunkId, NDArray[np.float32]]
) -> None:
    """Add vectors, normalised as the index holds them; those whose chunk or generation has ended are left out."""
    columns = {"ids": list(made), "vectors": [vector.astype("<f4").tobytes() for vector in made.values()]}
    async with database.transaction() as connection:
        if await _held(connection, corpus, generation):
            await connection.fetch(_ADD, {"corpus": corpus, "generation": generation, **columns})


async def _held(connection: Connection, corpus: CorpusId, generation: GenerationId) -> bool:
    return await connection.first(_HOLD, {"corpus": corpus, "generation": generation}) is not None
