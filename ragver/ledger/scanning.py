"""The ledger in the order of chunk ids, in columns, for holding it against an index of the same order.

A million rows as Python objects would take longer than both stores together, so the numbers come by COPY and
are never anything but arrays; what is text comes once for each document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from ragver.ledger.database import Database
from ragver.types import ChunkId, CorpusId, Epoch, GenerationId

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a generation and its corpus stand, read in one statement."""

    head: Epoch
    horizon: Epoch
    applied: Epoch


@dataclass(frozen=True, slots=True)
class Rows:
    """Chunks that have a vector in the generation, in ascending id order; all columns are of one length."""

    ids: Numbers
    documents: Numbers
    born: Numbers
    died: Numbers
    """0 for the living: no epoch that a chunk can die at."""
    touched: Numbers


Life: TypeAlias = tuple[int, int]
"""A document and the epoch of one of its deaths, 0 until now: that decides its chunks' access and metadata."""
Description: TypeAlias = tuple[str, str]
"""Access and metadata as PostgreSQL writes them: equal ones are equal texts, so that few have to be parsed."""


# Where a generation stands; no row once it or its corpus is gone.
_MOMENT = text("""
    SELECT c.epoch, c.horizon, g.applied_epoch
    FROM corpus c JOIN index_generation g ON g.corpus_id = c.id
    WHERE c.id = :corpus AND g.id = :generation
""")

# The next chunks that have a vector. Both sides begin at the same id, so that they can be merged.
_ROWS = text("""
    SELECT k.id, k.document_id, k.born_epoch, COALESCE(k.died_epoch, 0), k.touched_epoch
    FROM chunk k
    JOIN embedding e ON e.corpus_id = k.corpus_id AND e.generation_id = :generation AND e.chunk_id = k.id
    WHERE k.corpus_id = :corpus AND k.id > :after AND e.corpus_id = :corpus AND e.chunk_id > :after
    ORDER BY k.id LIMIT :limit
""")

# Access and metadata of documents: today's labels, and for the dead the metadata that they died with.
_DESCRIPTIONS = text("""
    SELECT l.document, l.died, CAST(d.acl AS text) AS acl, CASE WHEN l.died = 0 THEN CAST(d.metadata AS text) ELSE (
        SELECT CAST(metadata AS text) FROM document_version
        WHERE corpus_id = :corpus AND document_id = l.document AND died_epoch = l.died ORDER BY version DESC LIMIT 1
    ) END AS metadata
    FROM unnest(CAST(:documents AS bigint[]), CAST(:deaths AS bigint[])) AS l(document, died)
    CROSS JOIN LATERAL (SELECT acl, metadata FROM document WHERE corpus_id = :corpus AND id = l.document LIMIT 1) d
""")

# Of some chunks, those whose removal by an erasure has not come to its end.
_BEING_ERASED = text("""
    SELECT DISTINCT e.chunk_id FROM erasure, unnest(chunk_ids) AS e(chunk_id)
    WHERE corpus_id = :corpus AND completed_at IS NULL AND e.chunk_id = ANY(CAST(:ids AS bigint[]))
""")

# How many chunks have a vector in a generation.
_SIZE = text("SELECT count(*) AS size FROM embedding WHERE corpus_id = :corpus AND generation_id = :generation")

# The vectors of chunks in a range of ids.
_VECTORS = text("""
    SELECT chunk_id, vector FROM embedding
    WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id >= :first AND chunk_id <= :last
    ORDER BY chunk_id
""")

_COLUMNS = ("id", "document", "born", "died", "touched")
_HEADER_BYTES = 19
_TRAILER_BYTES = 2
# Of each row: the number of its fields; of each field: its length, and the number itself.
_ROW = np.dtype([("fields", ">i2"), *[part for name in _COLUMNS for part in ((f"{name}_bytes", ">i4"), (name, ">i8"))]])


async def moment(database: Database, corpus: CorpusId, generation: GenerationId) -> Moment | None:
    """Where a generation stands now; None once it or its corpus is gone."""
    rows = await database.fetch(_MOMENT, {"corpus": corpus, "generation": generation})
    return Moment(Epoch(rows[0].epoch), Epoch(rows[0].horizon), Epoch(rows[0].applied_epoch)) if rows else None


async def being_erased(database: Database, corpus: CorpusId, ids: Sequence[ChunkId]) -> set[ChunkId]:
    """The chunks among `ids` that an erasure is about to remove from the index."""
    return {ChunkId(row.chunk_id) for row in await database.fetch(_BEING_ERASED, {"corpus": corpus, "ids": list(ids)})}


async def size(database: Database, corpus: CorpusId, generation: GenerationId) -> int:
    """How many chunks have a vector in the generation. Counts."""
    return int((await database.fetch(_SIZE, {"corpus": corpus, "generation": generation}))[0]["size"])


async def rows(database: Database, corpus: CorpusId, generation: GenerationId, after: ChunkId, limit: int) -> Rows:
    """Up to `limit` chunks with an id above `after`; fewer means that there are no more."""
    numbers = {"corpus": corpus, "generation": generation, "after": after, "limit": limit}
    async with database.autocommit() as connection:
        copied = await connection.copy(_ROWS, numbers)
    count = (len(copied) - _HEADER_BYTES - _TRAILER_BYTES) // _ROW.itemsize
    table = np.frombuffer(copied, dtype=_ROW, count=count, offset=_HEADER_BYTES)
    return Rows(*(table[name].astype(np.int64) for name in _COLUMNS))


async def descriptions(database: Database, corpus: CorpusId, lives: Sequence[Life]) -> dict[Life, Description]:
    """The access and metadata that go with each of these lives."""
    parameters = {
        "corpus": corpus,
        "documents": [document for document, _ in lives],
        "deaths": [died for _, died in lives],
    }
    found = await database.fetch(_DESCRIPTIONS, parameters)
    return {(row[0], row[1]): (row[2], row[3] or "{}") for row in found}


async def vectors(
    database: Database, corpus: CorpusId, generation: GenerationId, first: ChunkId, last: ChunkId
) -> dict[ChunkId, bytes]:
    """The vectors of the chunks in a range of ids, both ends included, as the ledger keeps them."""
    parameters = {"corpus": corpus, "generation": generation, "first": first, "last": last}
    return {ChunkId(row.chunk_id): row.vector for row in await database.fetch(_VECTORS, parameters)}
