"""Documents at an epoch, their versions, and the change feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ragver import wire
from ragver.ledger.database import Database, Row
from ragver.types import WILDCARD, Cause, CorpusId, Epoch

_ALIVE_AT = "v.born_epoch <= :epoch AND (v.died_epoch IS NULL OR v.died_epoch > :epoch)"

# Today's access list, which is the document's and not that of any version; NULL asks for no access list at all.
_READABLE = """
    (CAST(:labels AS text[]) IS NULL OR EXISTS (
        SELECT 1 FROM document d
        WHERE d.corpus_id = v.corpus_id AND d.id = v.document_id AND d.acl ?| CAST(:labels AS text[])))
"""

# A document at an epoch with its chunks in order, and the horizon that says whether that epoch is whole.
# `chunks` is NULL for an empty document; a chunk whose text is gone shows as NULL in `texts`.
_DOCUMENT = text(f"""
    SELECT c.epoch AS head, c.horizon, v.key, v.version, v.born_epoch, v.died_epoch, v.cause, v.title,
           v.uri, v.metadata, v.acl, v.chunk_ids, t.texts
    FROM corpus c
    LEFT JOIN document_version v ON v.corpus_id = c.id AND v.key = :key AND {_ALIVE_AT} AND {_READABLE}
    LEFT JOIN LATERAL (
        SELECT array_agg(k.text ORDER BY u.place) AS texts
        FROM unnest(v.chunk_ids) WITH ORDINALITY AS u(id, place)
        JOIN chunk k ON k.corpus_id = c.id AND k.id = u.id
    ) t ON true
    WHERE c.id = :corpus
""")

# Documents alive at an epoch and not erased since, in the order of their keys (bytewise), after a key. Those with a
# prefix lie between the prefix alone and the prefix with a key of only the highest character: bounds for the index,
# where `starts_with` would have it read on to the end of the corpus.
_DOCUMENTS = text(f"""
    SELECT v.key, v.version, v.title, v.uri, v.born_epoch FROM document_version v
    WHERE v.corpus_id = :corpus AND v.key > :after
      AND v.key >= :prefix AND v.key <= CAST(:prefix AS text) || repeat(chr(1114111), {wire.KEY_CHARACTERS_MAX})
      AND {_ALIVE_AT} AND {_READABLE} AND v.cause IS DISTINCT FROM 'erased'
    ORDER BY v.key LIMIT :limit
""")

# All versions of the document that lives under a key, or was the last to do so, oldest first.
_VERSIONS = text(f"""
    SELECT v.* FROM document_version v
    WHERE v.corpus_id = :corpus AND v.document_id = (
        SELECT document_id FROM document_version WHERE corpus_id = :corpus AND key = :key
        ORDER BY version DESC LIMIT 1)
      AND {_READABLE}
    ORDER BY v.version
""")

# The change feed after an epoch, oldest first.
_COMMITS = text("""
    SELECT epoch, committed_at, actor, reason, idempotency_key, summary FROM commit_log
    WHERE corpus_id = :corpus AND epoch > :since ORDER BY epoch LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Reading:
    """A document looked up at an epoch, with the bounds within which the answer means something."""

    head: Epoch
    horizon: Epoch
    document: wire.Document | None
    erased: bool
    """Whether there was a document at the epoch that has been erased since."""


async def at_epoch(
    database: Database, corpus: CorpusId, key: str, epoch: Epoch, principals: Sequence[str] | None = None
) -> Reading | None:
    """The document under `key` at `epoch`; None if there is no such corpus any more.

    With `principals`, here and below, only what today's access lists let them read.
    """
    parameters = {"corpus": corpus, "key": key, "epoch": epoch, "labels": _labels(principals)}
    rows = await database.fetch(_DOCUMENT, parameters)
    if not rows:
        return None
    row = rows[0]
    erased = row.cause == Cause.ERASED
    document = None if erased or row.key is None else _document(row)
    return Reading(Epoch(row.head), Epoch(row.horizon), document, erased)


def _document(row: Row) -> wire.Document:
    texts = row.texts or []
    chunks = [
        wire.Chunk(chunk_id=str(chunk_id), text=chunk_text or "")
        for chunk_id, chunk_text in zip(row.chunk_ids, texts, strict=True)
    ]
    return wire.Document(
        key=row.key,
        version=row.version,
        born_epoch=row.born_epoch,
        died_epoch=row.died_epoch,
        title=row.title,
        uri=row.uri,
        metadata=row.metadata,
        acl=row.acl,
        text="".join(chunk.text for chunk in chunks),
        chunks=chunks,
    )


def _labels(principals: Sequence[str] | None) -> list[str] | None:
    return None if principals is None else [*principals, WILDCARD]


async def page(
    database: Database,
    corpus: CorpusId,
    epoch: Epoch,
    prefix: str,
    after: str,
    limit: int,
    principals: Sequence[str] | None = None,
) -> list[wire.DocumentSummary]:
    """Up to `limit` documents alive at `epoch` whose keys start with `prefix` and come after `after`."""
    parameters = {
        "corpus": corpus,
        "epoch": epoch,
        "prefix": prefix,
        "after": after,
        "limit": limit,
        "labels": _labels(principals),
    }
    rows = await database.fetch(_DOCUMENTS, parameters)
    return [
        wire.DocumentSummary(key=row.key, version=row.version, title=row.title, uri=row.uri, born_epoch=row.born_epoch)
        for row in rows
    ]


async def versions(
    database: Database, corpus: CorpusId, key: str, principals: Sequence[str] | None = None
) -> list[wire.DocumentVersion]:
    """The history of the document that lives under `key`, or was the last to do so; empty if there was none."""
    rows = await database.fetch(_VERSIONS, {"corpus": corpus, "key": key, "labels": _labels(principals)})
    return [
        wire.DocumentVersion(
            version=row.version,
            key=row.key,
            born_epoch=row.born_epoch,
            died_epoch=row.died_epoch,
            cause=None if row.cause is None else Cause(row.cause),
            title=row.title,
            uri=row.uri,
            metadata=row.metadata,
            acl=row.acl,
            chunks=len(row.chunk_ids),
        )
        for row in rows
    ]


async def commits(database: Database, corpus: CorpusId, since: Epoch, limit: int) -> list[wire.CommitEntry]:
    """Up to `limit` commits after epoch `since`, oldest first."""
    rows = await database.fetch(_COMMITS, {"corpus": corpus, "since": since, "limit": limit})
    return [
        wire.CommitEntry(
            epoch=row.epoch,
            committed_at=row.committed_at,
            actor=row.actor,
            reason=row.reason,
            idempotency_key=row.idempotency_key,
            documents=[wire.DocumentChange(**document) for document in row.summary],
        )
        for row in rows
    ]
