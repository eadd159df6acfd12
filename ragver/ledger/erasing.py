"""The commit that takes everything of some documents out of the ledger.

It is a commit like any other, with an epoch and a place in the chain, but made in one transaction under the corpus's
lock: it reaches back into every version, every chunk and every row of the log that ever had to do with the documents.
Whatever is taken stays away: nothing else in the ledger has a copy, and vectors only ever come from texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import text

from ragver import wire
from ragver.errors import CorpusNotFound, DocumentNotFound
from ragver.ledger import erasures
from ragver.ledger.audit import log_row
from ragver.ledger.chain import HASH_BEFORE_FIRST, LogRow, redacted, seal
from ragver.ledger.commits import lock
from ragver.ledger.database import Connection, Database, Row
from ragver.ledger.erasures import Erasure
from ragver.types import CorpusId, DocumentStatus, Epoch


@dataclass(frozen=True, slots=True)
class _Work:
    """An erasure on its way into the ledger."""

    corpus: CorpusId
    erasure_id: int
    epoch: Epoch
    committed_at: datetime
    documents: Sequence[Row]
    named: Sequence[str]
    pseudonyms: Mapping[str, str]
    """For every key that the documents ever had; empty where keys stay."""

    @property
    def document_ids(self) -> list[int]:
        return [document.id for document in self.documents]

    def shown(self, key: str) -> str:
        return self.pseudonyms.get(key, key)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "corpus": self.corpus,
            "documents": self.document_ids,
            "epoch": self.epoch,
            "keys": list(self.pseudonyms),
            "pseudonyms": list(self.pseudonyms.values()),
        }


# The documents that ever lived under these keys, and which of the keys they account for.
_NAMED = text("""
    SELECT DISTINCT document_id, key FROM document_version
    WHERE corpus_id = :corpus AND key = ANY(CAST(:keys AS text[]))
""")

# These documents with their living chunks and every key that they ever had.
_DOCUMENTS = text("""
    SELECT d.id, d.key, d.version,
           (SELECT count(*) FROM chunk WHERE corpus_id = d.corpus_id AND document_id = d.id
             AND died_epoch IS NULL) AS living,
           (SELECT array_agg(DISTINCT key ORDER BY key) FROM document_version
             WHERE corpus_id = d.corpus_id AND document_id = d.id) AS keys
    FROM document d
    WHERE d.corpus_id = :corpus AND d.id = ANY(CAST(:documents AS bigint[]))
    ORDER BY d.key, d.id
""")

_NEXT_ID = text("SELECT nextval('erasure_id_seq') AS id")

_NEXT_EPOCH = text("""
    UPDATE corpus SET epoch = epoch + 1, last_committed_at = greatest(clock_timestamp(), last_committed_at)
    WHERE id = :corpus RETURNING epoch, last_committed_at AS committed_at
""")

# What takes the place of a key, where it has a pseudonym.
_PSEUDONYM = """
    coalesce((SELECT p.pseudonym FROM unnest(CAST(:keys AS text[]), CAST(:pseudonyms AS text[])) AS p(key, pseudonym)
              WHERE p.key = {table}.key), {table}.key)
"""
_LABELS = "CASE WHEN cardinality(CAST(:keys AS text[])) > 0 THEN '[]'::jsonb ELSE acl END"

# The documents die, if they lived, and say nothing any more.
_END_DOCUMENTS = text(f"""
    UPDATE document SET alive = false, metadata = '{{}}', touched_epoch = :epoch, acl = {_LABELS},
                        key = {_PSEUDONYM.format(table="document")}
    WHERE corpus_id = :corpus AND id = ANY(CAST(:documents AS bigint[]))
""")

_END_VERSIONS = text(f"""
    UPDATE document_version SET
        title = NULL, uri = NULL, metadata = '{{}}', acl = {_LABELS}, cause = 'erased',
        died_epoch = coalesce(died_epoch, :epoch), key = {_PSEUDONYM.format(table="document_version")}
    WHERE corpus_id = :corpus AND document_id = ANY(CAST(:documents AS bigint[]))
    RETURNING version
""")

# In the order in which retention locks them too.
_LOCK_CHUNKS = text("""
    SELECT id FROM chunk WHERE corpus_id = :corpus AND document_id = ANY(CAST(:documents AS bigint[]))
    ORDER BY id FOR UPDATE
""")

# The hash goes with the text: a guess at the text could be confirmed by it.
_END_CHUNKS = text("""
    UPDATE chunk SET text = NULL, content_hash = '', cause = 'erased', touched_epoch = :epoch,
                     died_epoch = coalesce(died_epoch, :epoch)
    WHERE corpus_id = :corpus AND id = ANY(CAST(:chunks AS bigint[]))
""")

# Rows of the log that name one of the keys asked for, or another key of the documents while it was theirs.
_LOGGED = text("""
    SELECT l.*, EXISTS (SELECT FROM erasure e WHERE e.corpus_id = l.corpus_id AND e.epoch = l.epoch) AS is_erasure
    FROM commit_log l
    WHERE l.corpus_id = :corpus AND EXISTS (
        SELECT FROM jsonb_array_elements(l.summary) AS s(change)
        WHERE s.change ->> 'key' = ANY(CAST(:named AS text[])) OR EXISTS (
            SELECT FROM document_version v
            WHERE v.corpus_id = l.corpus_id AND v.key = s.change ->> 'key'
              AND v.document_id = ANY(CAST(:documents AS bigint[]))
              AND v.born_epoch <= l.epoch AND (v.died_epoch IS NULL OR v.died_epoch >= l.epoch)
        )
    )
    ORDER BY l.epoch
""")

_REDACT = text("""
    UPDATE commit_log l SET reason = r.reason, idempotency_key = r.idempotency_key, request_hash = r.request_hash,
                            summary = CAST(r.summary AS jsonb), digest = r.digest, redacted_by = :erasure
    FROM unnest(CAST(:epochs AS bigint[]), CAST(:reasons AS text[]), CAST(:idempotency_keys AS text[]),
                CAST(:request_hashes AS bytea[]), CAST(:summaries AS text[]), CAST(:digests AS bytea[]))
         AS r(epoch, reason, idempotency_key, request_hash, summary, digest)
    WHERE l.corpus_id = :corpus AND l.epoch = r.epoch
""")

_LAST_HASH = text("SELECT hash FROM commit_log WHERE corpus_id = :corpus AND epoch = :epoch - 1")

_LOG = text("""
    INSERT INTO commit_log (corpus_id, epoch, committed_at, actor, reason, request_hash, summary, prev_hash, hash)
    VALUES (:corpus, :epoch, :committed_at, :actor, :reason, :request_hash, CAST(:summary AS jsonb), :prev_hash, :hash)
""")

_INSERT = text("""
    INSERT INTO erasure (corpus_id, id, epoch, keys, keys_too, document_ids, chunk_ids, versions, redactions, stores)
    VALUES (:corpus, :erasure, :epoch, :shown, :keys_too, :documents, :chunks, :versions,
            CAST(:redactions AS jsonb), '[]')
""")


async def commit(database: Database, corpus: CorpusId, request: wire.ErasureRequest) -> Erasure:
    """Erase every document that ever lived under one of the keys, as the next epoch.

    Raises ``DocumentNotFound``, naming the keys that no document ever had; then nothing is written.
    """
    async with database.transaction() as connection:
        await lock(connection, corpus)
        work = await _begin(connection, corpus, request)
        # Before versions lose their keys and spans, by which the rows are found.
        rows = await connection.fetch(
            _LOGGED, {"corpus": corpus, "named": list(work.named), "documents": work.document_ids}
        )
        chunk_ids, versions = await _take(connection, work)
        redactions = await _redact(connection, work, rows)
        await _log(connection, work, request, seal(work.erasure_id, work.document_ids, redactions))
        await connection.fetch(
            _INSERT,
            {
                **work.parameters,
                "erasure": work.erasure_id,
                "shown": [work.shown(key) for key in request.keys],
                "keys_too": request.keys_too,
                "chunks": chunk_ids,
                "versions": versions,
                "redactions": json.dumps(redactions),
            },
        )
    return await erasures.get(database, corpus, work.erasure_id)


async def _begin(connection: Connection, corpus: CorpusId, request: wire.ErasureRequest) -> _Work:
    named = list(dict.fromkeys(request.keys))
    found = await connection.fetch(_NAMED, {"corpus": corpus, "keys": named})
    unknown = sorted(set(named) - {row.key for row in found})
    if unknown:
        raise DocumentNotFound(f"no document ever had the key {', '.join(map(repr, unknown))}; nothing was erased")
    documents = await connection.fetch(
        _DOCUMENTS, {"corpus": corpus, "documents": sorted({row.document_id for row in found})}
    )
    (next_id,) = await connection.fetch(_NEXT_ID)
    epoch = await connection.first(_NEXT_EPOCH, {"corpus": corpus})
    if epoch is None:
        raise CorpusNotFound("the corpus was deleted meanwhile")
    keys = dict.fromkeys([*named, *(key for document in documents for key in document["keys"])])
    pseudonyms = {key: f"erased-{next_id.id}-{number}" for number, key in enumerate(keys, 1)}
    return _Work(
        corpus,
        next_id.id,
        Epoch(epoch.epoch),
        epoch.committed_at,
        documents,
        named,
        pseudonyms if request.keys_too else {},
    )


async def _take(connection: Connection, work: _Work) -> tuple[list[int], int]:
    """Take everything out of documents, versions, chunks and vectors; the chunks, and how many versions there were."""
    chunk_ids = [row.id for row in await connection.fetch(_LOCK_CHUNKS, work.parameters)]
    parameters = {**work.parameters, "chunks": chunk_ids}
    await connection.fetch(_END_CHUNKS, parameters)
    await connection.fetch(erasures.DROP_VECTORS, parameters)
    versions = await connection.fetch(_END_VERSIONS, parameters)
    await connection.fetch(_END_DOCUMENTS, parameters)
    return chunk_ids, len(versions)


async def _redact(connection: Connection, work: _Work, rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Redact these rows of the log; their epochs with the digests of what is left."""
    left = [redacted(log_row(row), work.erasure_id, work.pseudonyms, keep_request_hash=row.is_erasure) for row in rows]
    columns = {
        "epochs": [row.epoch for row in left],
        "reasons": [row.reason for row in left],
        "idempotency_keys": [row.idempotency_key for row in left],
        "request_hashes": [row.request_hash for row in left],
        "summaries": [json.dumps(row.documents) for row in left],
        "digests": [row.digest for row in left],
    }
    await connection.fetch(_REDACT, {"corpus": work.corpus, "erasure": work.erasure_id, **columns})
    return [(row.epoch, row.content_digest().hex()) for row in left]


async def _log(connection: Connection, work: _Work, request: wire.ErasureRequest, sealed: bytes) -> None:
    before = await connection.first(_LAST_HASH, {"corpus": work.corpus, "epoch": work.epoch})
    draft = LogRow(
        epoch=work.epoch,
        committed_at=work.committed_at,
        actor=request.actor,
        reason=request.reason,
        idempotency_key=None,
        request_hash=sealed,
        documents=[_change(work, document).model_dump(mode="json") for document in work.documents],
        prev_hash=HASH_BEFORE_FIRST if before is None else before.hash,
        hash=b"",
    )
    row = replace(draft, hash=draft.link())
    await connection.fetch(
        _LOG,
        {
            "corpus": work.corpus,
            "epoch": row.epoch,
            "committed_at": row.committed_at,
            "actor": row.actor,
            "reason": row.reason,
            "request_hash": row.request_hash,
            "summary": json.dumps(row.documents),
            "prev_hash": row.prev_hash,
            "hash": row.hash,
        },
    )


def _change(work: _Work, document: Row) -> wire.DocumentChange:
    return wire.DocumentChange(
        key=work.shown(document.key),
        version=document.version,
        status=DocumentStatus.DELETED,
        chunks_added=0,
        chunks_kept=0,
        chunks_removed=document.living,
    )
