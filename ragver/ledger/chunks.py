"""Chunks as retrieval, validation and the indexer read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from ragver.ledger.database import Database, Row
from ragver.types import Cause, ChunkId, CorpusId, DocumentId, Epoch, GenerationId


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk with what is true of it and its document now.

    `key`, `title`, `uri` and `version` are of the newest version that holds the chunk; `acl` is today's.
    """

    chunk_id: ChunkId
    document_id: DocumentId
    born_epoch: Epoch
    died_epoch: Epoch | None
    cause: Cause | None
    text: str | None
    """None once retention or erasure has removed it."""
    document_alive: bool
    document_version: int
    key: str
    title: str | None
    uri: str | None
    metadata: dict[str, Any]
    version: int
    acl: tuple[str, ...]

    def alive_at(self, epoch: Epoch) -> bool:
        return self.born_epoch <= epoch and (self.died_epoch is None or self.died_epoch > epoch)


class Records(NamedTuple):
    """What one statement found, and the moment it saw."""

    by_id: dict[ChunkId, ChunkRecord]
    head: Epoch | None
    """The corpus's head at that moment; None when nothing was found."""


@dataclass(frozen=True, slots=True)
class Change:
    """A chunk that was born, died, or got other labels or metadata.

    `acl` is today's; `metadata` that of the newest version that holds the chunk.
    """

    chunk_id: ChunkId
    document_id: DocumentId
    born_epoch: Epoch
    died_epoch: Epoch | None
    touched_epoch: Epoch
    acl: tuple[str, ...]
    metadata: dict[str, Any]
    vector: NDArray[np.float32] | None
    """None once retention or erasure has removed it, or while the generation has yet to be given one."""
    awaits_vector: bool = False
    """The chunk can be read, and the generation has no vector of it yet."""


class Described(NamedTuple):
    """A document as filters and access see it."""

    acl: tuple[str, ...]
    metadata: dict[str, Any]


class Settled(NamedTuple):
    """Documents that only the index can be asked about, and the moment they were looked up."""

    documents: list[Described]
    head: Epoch | None
    """The corpus's head at that moment; None when there is no such corpus any more."""


# The statements below begin at the chunks and look the rest up row by row, whatever the planner thinks of it:
# on tables that were never analysed it would rather begin at all documents of the corpus.
_OF_THEIR_DOCUMENTS = """
    CROSS JOIN LATERAL (
        SELECT alive, version, acl, metadata FROM document
        WHERE corpus_id = :corpus AND id = k.document_id LIMIT 1
    ) d
"""

_RECORD_COLUMNS = f"""
    SELECT k.id, k.document_id, k.born_epoch, k.died_epoch, k.cause, k.text, d.alive, d.version AS document_version,
           d.acl, v.key, v.title, v.uri, v.metadata, v.version,
           (SELECT epoch FROM corpus WHERE id = :corpus) AS head
    FROM k {_OF_THEIR_DOCUMENTS}
"""

# Chunks by id, with their documents as they are now. The version is the one that died with the chunk; for a
# living chunk both have not died, and it is the document's present one.
_RECORDS = text(f"""
    WITH k AS MATERIALIZED (
        SELECT * FROM chunk WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[]))
    )
    {_RECORD_COLUMNS}
    CROSS JOIN LATERAL (
        SELECT key, title, uri, metadata, version FROM document_version
        WHERE corpus_id = :corpus AND document_id = k.document_id AND died_epoch IS NOT DISTINCT FROM k.died_epoch
        ORDER BY version DESC LIMIT 1
    ) v
""")

# The same, of chunks alive at an epoch, with key, title, metadata and version as they were then.
_RECORDS_AT = text(f"""
    WITH k AS MATERIALIZED (
        SELECT * FROM chunk WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[]))
          AND born_epoch <= :epoch AND (died_epoch IS NULL OR died_epoch > :epoch)
    )
    {_RECORD_COLUMNS}
    CROSS JOIN LATERAL (
        SELECT key, title, uri, metadata, version FROM document_version
        WHERE corpus_id = :corpus AND document_id = k.document_id
          AND born_epoch <= :epoch AND (died_epoch IS NULL OR died_epoch > :epoch)
        ORDER BY version DESC LIMIT 1
    ) v
""")

_CHANGED_COLUMNS = "id, document_id, born_epoch, died_epoch, touched_epoch, text IS NOT NULL AS has_text"

# A dead chunk has the metadata it died with: its document may have come back with other metadata since.
_CHANGE_COLUMNS = f"""
    SELECT k.id, k.document_id, k.born_epoch, k.died_epoch, k.touched_epoch, d.acl, e.vector,
           e.vector IS NULL AND k.has_text AND (k.died_epoch IS NULL OR k.died_epoch > (
               SELECT horizon FROM corpus WHERE id = :corpus
           )) AS awaits_vector,
           CASE WHEN k.died_epoch IS NULL THEN d.metadata ELSE (
               SELECT metadata FROM document_version
               WHERE corpus_id = :corpus AND document_id = k.document_id AND died_epoch = k.died_epoch
               ORDER BY version DESC LIMIT 1
           ) END AS metadata
    FROM k {_OF_THEIR_DOCUMENTS}
    LEFT JOIN LATERAL (
        SELECT vector FROM embedding
        WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id = k.id LIMIT 1
    ) e ON true
    ORDER BY k.touched_epoch, k.id
"""

# Changes after a place in the order of (epoch, chunk).
_CHANGES = text(f"""
    WITH k AS MATERIALIZED (
        SELECT {_CHANGED_COLUMNS} FROM chunk
        WHERE corpus_id = :corpus AND (touched_epoch, id) > (:epoch, :chunk)
        ORDER BY touched_epoch, id LIMIT :limit
    )
    {_CHANGE_COLUMNS}
""")

# What the index has to hold of chunks by id, as of now.
_CHANGES_OF = text(f"""
    WITH k AS MATERIALIZED (
        SELECT {_CHANGED_COLUMNS} FROM chunk
        WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[]))
    )
    {_CHANGE_COLUMNS}
""")

# Of the changes after an applied epoch, those of chunks alive at an epoch.
_CHANGES_OF_ALIVE = text(f"""
    WITH k AS MATERIALIZED (
        SELECT {_CHANGED_COLUMNS} FROM chunk
        WHERE corpus_id = :corpus AND touched_epoch > :applied
          AND born_epoch <= :epoch AND (died_epoch IS NULL OR died_epoch > :epoch)
        ORDER BY touched_epoch, id LIMIT :limit
    )
    {_CHANGE_COLUMNS}
""")

# Chunks alive at an epoch whose document's filterable metadata is another one now.
_REDESCRIBED = text("""
    SELECT k.id, k.document_id, k.born_epoch, k.died_epoch, k.touched_epoch, d.acl, v.metadata, e.vector,
           false AS awaits_vector
    FROM document d
    JOIN document_version v ON v.corpus_id = d.corpus_id AND v.document_id = d.id
        AND v.born_epoch <= :epoch AND (v.died_epoch IS NULL OR v.died_epoch > :epoch)
    JOIN chunk k ON k.corpus_id = d.corpus_id AND k.document_id = d.id
        AND k.born_epoch <= :epoch AND (k.died_epoch IS NULL OR k.died_epoch > :epoch)
    LEFT JOIN embedding e ON e.corpus_id = k.corpus_id AND e.generation_id = :generation AND e.chunk_id = k.id
    WHERE d.corpus_id = :corpus AND d.metadata_epoch > :epoch
    ORDER BY k.id LIMIT :limit
""")

# Living documents with a chunk that nothing has touched since an epoch, and the head at the moment of looking. The
# walk along the living keys passes over as many others as there are documents with changes, which are few.
_SETTLED_DOCUMENTS = text("""
    SELECT c.epoch AS head, settled.acl, settled.metadata
    FROM corpus c LEFT JOIN LATERAL (
        SELECT d.acl, d.metadata
        FROM document d CROSS JOIN LATERAL (
            SELECT 1 FROM chunk
            WHERE corpus_id = :corpus AND document_id = d.id AND died_epoch IS NULL AND touched_epoch <= :epoch
            LIMIT 1
        ) k
        WHERE d.corpus_id = :corpus AND d.alive ORDER BY d.key LIMIT :limit
    ) settled ON true
    WHERE c.id = :corpus
""")

# Documents that any commit after an epoch touched.
_TOUCHED_DOCUMENTS = text("""
    SELECT id FROM document WHERE corpus_id = :corpus AND touched_epoch > :epoch
    ORDER BY touched_epoch LIMIT :limit
""")


# Which of these chunks have a vector.
_WITH_VECTORS = text("""
    SELECT chunk_id FROM embedding
    WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id = ANY(CAST(:ids AS bigint[]))
""")


async def records(database: Database, corpus: CorpusId, ids: Sequence[ChunkId]) -> Records:
    """The chunks that exist among `ids`, dead or alive, as they are now."""
    return _records(await database.fetch(_RECORDS, {"corpus": corpus, "ids": list(ids)}))


async def records_at(database: Database, corpus: CorpusId, ids: Sequence[ChunkId], epoch: Epoch) -> Records:
    """The chunks among `ids` that are alive at `epoch`, described as they were then; `acl` is today's."""
    return _records(await database.fetch(_RECORDS_AT, {"corpus": corpus, "ids": list(ids), "epoch": epoch}))


def _records(rows: Sequence[Row]) -> Records:
    return Records({ChunkId(row.id): _record(row) for row in rows}, Epoch(rows[0].head) if rows else None)


def _record(row: Row) -> ChunkRecord:
    return ChunkRecord(
        chunk_id=ChunkId(row.id),
        document_id=DocumentId(row.document_id),
        born_epoch=Epoch(row.born_epoch),
        died_epoch=None if row.died_epoch is None else Epoch(row.died_epoch),
        cause=None if row.cause is None else Cause(row.cause),
        text=row.text,
        document_alive=row.alive,
        document_version=row.document_version,
        key=row.key,
        title=row.title,
        uri=row.uri,
        metadata=row.metadata,
        version=row.version,
        acl=tuple(row.acl),
    )


async def changes(
    database: Database,
    corpus: CorpusId,
    generation: GenerationId,
    after: tuple[Epoch, ChunkId],
    limit: int,
) -> list[Change]:
    """Up to `limit` changed chunks after a place in the order of (touched epoch, chunk id), in that order."""
    epoch, chunk_id = after
    parameters = {
        "corpus": corpus,
        "generation": generation,
        "epoch": epoch,
        "chunk": chunk_id,
        "limit": limit,
    }
    return [_change(row) for row in await database.fetch(_CHANGES, parameters)]


async def changes_of(
    database: Database, corpus: CorpusId, generation: GenerationId, ids: Sequence[ChunkId]
) -> dict[ChunkId, Change]:
    """The chunks that exist among `ids`, as the index has to hold them now."""
    parameters = {"corpus": corpus, "generation": generation, "ids": list(ids)}
    return {ChunkId(row.id): _change(row) for row in await database.fetch(_CHANGES_OF, parameters)}


async def changes_of_alive(
    database: Database, corpus: CorpusId, generation: GenerationId, applied: Epoch, epoch: Epoch, limit: int
) -> list[Change]:
    """Up to `limit` chunks alive at `epoch` that were touched after `applied`; looks at everything touched since."""
    parameters = {"corpus": corpus, "generation": generation, "applied": applied, "epoch": epoch, "limit": limit}
    return [_change(row) for row in await database.fetch(_CHANGES_OF_ALIVE, parameters)]


async def redescribed(
    database: Database, corpus: CorpusId, generation: GenerationId, epoch: Epoch, limit: int
) -> list[Change]:
    """Up to `limit` chunks alive at `epoch`, with their metadata of then, whose document's filterable metadata
    has changed since: what the index says of them no longer holds for that epoch."""
    parameters = {"corpus": corpus, "generation": generation, "epoch": epoch, "limit": limit}
    return [_change(row) for row in await database.fetch(_REDESCRIBED, parameters)]


def _change(row: Row) -> Change:
    return Change(
        chunk_id=ChunkId(row.id),
        document_id=DocumentId(row.document_id),
        born_epoch=Epoch(row.born_epoch),
        died_epoch=None if row.died_epoch is None else Epoch(row.died_epoch),
        touched_epoch=Epoch(row.touched_epoch),
        acl=tuple(row.acl),
        metadata=row.metadata,
        vector=None if row.vector is None else np.frombuffer(row.vector, dtype="<f4"),
        awaits_vector=row.awaits_vector,
    )


async def settled_documents(database: Database, corpus: CorpusId, since: Epoch, limit: int) -> Settled:
    """Up to `limit` living documents with a chunk that no commit after `since` touched."""
    rows = await database.fetch(_SETTLED_DOCUMENTS, {"corpus": corpus, "epoch": since, "limit": limit})
    described = [Described(tuple(row.acl), row.metadata) for row in rows if row.acl is not None]
    return Settled(described, Epoch(rows[0].head) if rows else None)


async def touched_documents(database: Database, corpus: CorpusId, since: Epoch, limit: int) -> list[DocumentId]:
    """Up to `limit` documents that commits after `since` touched."""
    parameters = {"corpus": corpus, "epoch": since, "limit": limit}
    return [DocumentId(row.id) for row in await database.fetch(_TOUCHED_DOCUMENTS, parameters)]


async def with_vectors(
    database: Database, corpus: CorpusId, generation: GenerationId, ids: Sequence[ChunkId]
) -> set[ChunkId]:
    """Which of these chunks the ledger has a vector of in the generation."""
    rows = await database.fetch(_WITH_VECTORS, {"corpus": corpus, "generation": generation, "ids": list(ids)})
    return {ChunkId(row.chunk_id) for row in rows}
