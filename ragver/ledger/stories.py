"""What the ledger knows of one document, chunk or answer from beginning to end. For people who look; no hot path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ragver.ledger.database import Database
from ragver.types import ChunkId, CorpusId, DocumentId, Epoch

VERSIONS_MAX = 1_000
CHUNKS_MAX = 10_000
MENTIONS_MAX = 200


@dataclass(frozen=True, slots=True)
class Commit:
    epoch: Epoch
    at: datetime
    actor: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Version:
    document_id: DocumentId
    version: int
    key: str
    title: str | None
    uri: str | None
    metadata: object
    acl: tuple[str, ...]
    chunk_ids: tuple[ChunkId, ...]
    born_epoch: Epoch
    died_epoch: Epoch | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk without its text."""

    chunk_id: ChunkId
    document_id: DocumentId
    born_epoch: Epoch
    died_epoch: Epoch | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Mention:
    """A chunk in a recorded answer: cited, or among the hits."""

    chunk_id: ChunkId
    ref: int | None
    status: str | None
    cited_epoch: Epoch | None
    answer_key: str
    recorded_at: datetime
    validated_at: datetime
    snapshot_epoch: Epoch
    epoch: Epoch
    verdict: str


@dataclass(frozen=True, slots=True)
class Erased:
    erasure_id: int
    epoch: Epoch
    chunk_ids: tuple[ChunkId, ...]
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Applied:
    """How far a generation's index is."""

    generation: int
    state: str
    applied: Epoch


# The newest versions of a document.
_VERSIONS = text("""
    SELECT * FROM document_version WHERE corpus_id = :corpus AND document_id = :document
    ORDER BY version DESC LIMIT :limit
""")

# Whoever lives under a key, or was the last to do so.
_DOCUMENT = text("""
    SELECT document_id FROM document_version WHERE corpus_id = :corpus AND key = :key ORDER BY version DESC LIMIT 1
""")

_CHUNKS = text("""
    SELECT id, document_id, born_epoch, died_epoch, cause FROM chunk
    WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[]))
""")

_COMMITS = text("""
    SELECT epoch, committed_at, actor, reason FROM commit_log
    WHERE corpus_id = :corpus AND epoch = ANY(CAST(:epochs AS bigint[]))
""")

# The newest answers on record that cite one of the chunks or had one among their hits.
_MENTIONS = text("""
    SELECT c.chunk_id, c.ref, c.status, c.cited_epoch, a.key, a.recorded_at, a.validated_at, a.snapshot_epoch, a.epoch,
           a.verdict
    FROM unnest(CAST(:ids AS bigint[])) AS u(id)
    CROSS JOIN LATERAL (
        SELECT * FROM answer_citation WHERE corpus_id = :corpus AND chunk_id = u.id
        ORDER BY answer_id DESC LIMIT :limit
    ) c
    CROSS JOIN LATERAL (SELECT * FROM answer WHERE corpus_id = :corpus AND id = c.answer_id LIMIT 1) a
    ORDER BY c.answer_id DESC, c.ref LIMIT :limit
""")

_ERASURES = text("""
    SELECT id, epoch, chunk_ids, completed_at FROM erasure
    WHERE corpus_id = :corpus AND document_ids && CAST(:documents AS bigint[]) ORDER BY epoch
""")

_APPLIED = text("""
    SELECT id, state, applied_epoch FROM index_generation WHERE corpus_id = :corpus AND state <> 'retired' ORDER BY id
""")


async def document_of(database: Database, corpus: CorpusId, key: str) -> DocumentId | None:
    """Who lives under the key, or was the last to do so."""
    rows = await database.fetch(_DOCUMENT, {"corpus": corpus, "key": key})
    return DocumentId(rows[0].document_id) if rows else None


async def versions(database: Database, corpus: CorpusId, document: DocumentId) -> list[Version]:
    """The newest ``VERSIONS_MAX`` versions, oldest first."""
    rows = await database.fetch(_VERSIONS, {"corpus": corpus, "document": document, "limit": VERSIONS_MAX})
    return [
        Version(
            document_id=DocumentId(row.document_id),
            version=row.version,
            key=row.key,
            title=row.title,
            uri=row.uri,
            metadata=row.metadata,
            acl=tuple(row.acl),
            chunk_ids=tuple(map(ChunkId, row.chunk_ids)),
            born_epoch=Epoch(row.born_epoch),
            died_epoch=_epoch(row.died_epoch),
            cause=row.cause,
        )
        for row in reversed(rows)
    ]


async def pieces(database: Database, corpus: CorpusId, chunk_ids: Sequence[ChunkId]) -> list[Piece]:
    """The chunks that exist among `chunk_ids`, dead or alive."""
    rows = await database.fetch(_CHUNKS, {"corpus": corpus, "ids": list(chunk_ids)})
    return [
        Piece(
            chunk_id=ChunkId(row.id),
            document_id=DocumentId(row.document_id),
            born_epoch=Epoch(row.born_epoch),
            died_epoch=_epoch(row.died_epoch),
            cause=row.cause,
        )
        for row in rows
    ]


async def commits(database: Database, corpus: CorpusId, epochs: Iterable[Epoch]) -> dict[Epoch, Commit]:
    """What the log says of these epochs."""
    rows = await database.fetch(_COMMITS, {"corpus": corpus, "epochs": sorted(set(epochs))})
    return {Epoch(row.epoch): Commit(Epoch(row.epoch), row.committed_at, row.actor, row.reason) for row in rows}


async def mentions(database: Database, corpus: CorpusId, chunk_ids: Sequence[ChunkId]) -> list[Mention]:
    """The newest ``MENTIONS_MAX`` places of the chunks in recorded answers."""
    rows = await database.fetch(_MENTIONS, {"corpus": corpus, "ids": list(chunk_ids), "limit": MENTIONS_MAX})
    return [
        Mention(
            chunk_id=ChunkId(row.chunk_id),
            ref=row.ref,
            status=row.status,
            cited_epoch=_epoch(row.cited_epoch),
            answer_key=row.key,
            recorded_at=row.recorded_at,
            validated_at=row.validated_at,
            snapshot_epoch=Epoch(row.snapshot_epoch),
            epoch=Epoch(row.epoch),
            verdict=row.verdict,
        )
        for row in rows
    ]


async def erasures(database: Database, corpus: CorpusId, documents: Iterable[DocumentId]) -> list[Erased]:
    """The erasures of these documents."""
    rows = await database.fetch(_ERASURES, {"corpus": corpus, "documents": sorted(set(documents))})
    return [Erased(row.id, Epoch(row.epoch), tuple(map(ChunkId, row.chunk_ids)), row.completed_at) for row in rows]


async def applied(database: Database, corpus: CorpusId) -> list[Applied]:
    """How far each generation's index is."""
    rows = await database.fetch(_APPLIED, {"corpus": corpus})
    return [Applied(row.id, row.state, Epoch(row.applied_epoch)) for row in rows]


def _epoch(number: int | None) -> Epoch | None:
    return None if number is None else Epoch(number)
