"""Commits: read the documents, plan, write everything in one statement.

A reader must never see epoch 8 while 7 is still to come, or it misses 7 for ever; so epochs have to be issued
in the order in which transactions commit. A sequence cannot promise that: it hands out numbers before the
commit, and a slow transaction becomes visible after a faster one with a higher number. Here an epoch is issued
by updating the corpus row. The row lock is held until the commit, so the next epoch is issued after it.

The update also says which epoch it expects to follow. That makes it a compare-and-set: if another commit came
between reading the documents and writing the plan, nothing is written, and the plan is made again. It also names
the generation that its vectors are for: a cut-over in between is noticed the same way. Splitting
and embedding happen before, outside any lock. ``lock`` serves the writer who keeps being overtaken.

Each commit is chained to the one before it; what the chain is made of is in ``ragver.ledger.chain``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from asyncpg import UniqueViolationError
from numpy.typing import NDArray
from sqlalchemy import text

from ragver import wire
from ragver.errors import CorpusNotFound
from ragver.ledger.chain import HASH_BEFORE_FIRST, content_digest
from ragver.ledger.database import Connection, Row
from ragver.ledger.plan import DocumentPlan, DocumentState, Slot
from ragver.types import ChunkId, CorpusId, DocumentId, Epoch, GenerationId

NOT_READ = b""

Vectors = Mapping[bytes, NDArray[np.float32]]
"""Vectors of chunks that are to be born, by content hash."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the ledger held when the commit was planned."""

    head: Epoch
    generation: GenerationId
    """The one that served, and so the one whose vectors a commit has to bring."""
    hash: bytes
    documents: list[DocumentState]
    newest_versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class Logged:
    """A commit that is in the log."""

    epoch: Epoch
    committed_at: datetime
    request_hash: bytes
    documents: list[wire.DocumentChange]


@dataclass(frozen=True, slots=True)
class Record:
    """What the log keeps of a request besides its effect."""

    actor: str | None
    reason: str | None
    idempotency_key: str | None
    request_hash: bytes


# The commit that was made under an idempotency key, if any.
_LOGGED = text("""
    SELECT epoch, committed_at, request_hash, summary FROM commit_log
    WHERE corpus_id = :corpus AND idempotency_key = :key
""")

# Head, last hash, and for each key the document that lives under it or was the last to do so. One statement,
# so all of it is of one moment; the compare-and-set notices if that moment has passed.
_BEFORE = text("""
    SELECT c.epoch AS head, c.generation_id, l.hash, k.key, d.id, d.version, d.alive, d.acl, d.metadata, v.title, v.uri,
           CASE WHEN d.alive THEN v.chunk_ids ELSE '{}' END AS chunk_ids,
           (SELECT max(version) FROM document_version
             WHERE corpus_id = c.id AND key = k.key) AS newest_version
    FROM corpus c
    LEFT JOIN commit_log l ON l.corpus_id = c.id AND l.epoch = c.epoch
    LEFT JOIN unnest(CAST(:keys AS text[])) AS k(key) ON true
    LEFT JOIN LATERAL (
        SELECT * FROM document WHERE corpus_id = c.id AND key = k.key
        ORDER BY alive DESC, version DESC LIMIT 1
    ) d ON true
    LEFT JOIN document_version v
        ON v.corpus_id = c.id AND v.document_id = d.id AND v.version = d.version
    WHERE c.id = :corpus
""")

# Content hashes of the chunks that the documents hold.
_CONTENT_HASHES = text("""
    SELECT id, content_hash FROM chunk WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[]))
""")

# One vector for each content that the corpus has ever embedded, alive or dead.
_KNOWN_VECTORS = text("""
    SELECT DISTINCT ON (c.content_hash) c.content_hash, e.vector
    FROM chunk c CROSS JOIN LATERAL (
        SELECT vector FROM embedding
        WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id = c.id LIMIT 1
    ) e
    WHERE c.corpus_id = :corpus AND c.content_hash = ANY(CAST(:hashes AS bytea[]))
""")

_NEW_IDS = text("""
    SELECT (SELECT array_agg(nextval('chunk_id_seq')) FROM generate_series(1, :chunks)) AS chunks,
           (SELECT array_agg(nextval('document_id_seq')) FROM generate_series(1, :documents)) AS documents
""")

# Keeps every other commit of the corpus out until the transaction ends.
_LOCK = text("SELECT 1 FROM corpus WHERE id = :corpus FOR NO KEY UPDATE")

# The whole commit. Every part hangs on `head`, which is empty when the expected epoch is no longer the head, or
# when there was a cut-over: the vectors are then those of a generation that does not serve.
# An access list holds for old snapshots too, so a new one touches the dead chunks that these can still read.
_WRITE = text("""
    WITH head AS (
        UPDATE corpus SET
            epoch = epoch + 1,
            last_committed_at = greatest(clock_timestamp(), last_committed_at),
            payload_epoch = CASE WHEN :payload_changed THEN epoch + 1 ELSE payload_epoch END
        WHERE id = :corpus AND epoch = :expected AND generation_id = :generation
        RETURNING id, epoch, horizon, last_committed_at AS committed_at
    ), deaths AS (
        UPDATE chunk SET died_epoch = head.epoch, touched_epoch = head.epoch, cause = dead.cause
        FROM head, unnest(CAST(:dead_ids AS bigint[]), CAST(:dead_causes AS text[])) AS dead(id, cause)
        WHERE chunk.corpus_id = head.id AND chunk.id = dead.id
    ), touched AS (
        UPDATE chunk SET touched_epoch = head.epoch
        FROM head, unnest(CAST(:touched_ids AS bigint[])) AS kept(id)
        WHERE chunk.corpus_id = head.id AND chunk.id = kept.id
    ), relabelled AS (
        UPDATE chunk SET touched_epoch = head.epoch
        FROM head
        WHERE chunk.corpus_id = head.id AND chunk.document_id = ANY(CAST(:relabelled_documents AS bigint[]))
          AND chunk.died_epoch > head.horizon
    ), births AS (
        INSERT INTO chunk (corpus_id, id, document_id, content_hash, text, born_epoch, touched_epoch)
        SELECT head.id, born.*, head.epoch, head.epoch
        FROM head, unnest(CAST(:born_ids AS bigint[]), CAST(:born_documents AS bigint[]),
                          CAST(:born_hashes AS bytea[]), CAST(:born_texts AS text[])) AS born
    ), vectors AS (
        INSERT INTO embedding (corpus_id, generation_id, chunk_id, vector)
        SELECT head.id, :generation, born.id, born.vector
        FROM head, unnest(CAST(:born_ids AS bigint[]), CAST(:born_vectors AS bytea[])) AS born(id, vector)
    ), endings AS (
        UPDATE document_version v SET died_epoch = head.epoch, cause = ended.cause
        FROM head, unnest(CAST(:ended_documents AS bigint[]), CAST(:ended_versions AS bigint[]),
                          CAST(:ended_causes AS text[])) AS ended(document_id, version, cause)
        WHERE v.corpus_id = head.id AND v.document_id = ended.document_id AND v.version = ended.version
    ), versions AS (
        INSERT INTO document_version (corpus_id, document_id, version, key, title, uri, metadata, acl,
                                      chunk_ids, born_epoch)
        SELECT head.id, made.document_id, made.version, made.key, made.title, made.uri,
               CAST(made.metadata AS jsonb), CAST(made.acl AS jsonb), CAST(made.chunk_ids AS bigint[]), head.epoch
        FROM head, unnest(CAST(:made_documents AS bigint[]), CAST(:made_versions AS bigint[]),
                          CAST(:made_keys AS text[]), CAST(:made_titles AS text[]), CAST(:made_uris AS text[]),
                          CAST(:made_metadata AS text[]), CAST(:made_acls AS text[]),
                          CAST(:made_chunk_ids AS text[]))
             AS made(document_id, version, key, title, uri, metadata, acl, chunk_ids)
    ), documents AS (
        INSERT INTO document AS d (corpus_id, id, key, version, alive, acl, metadata, touched_epoch, metadata_epoch)
        SELECT head.id, doc.id, doc.key, doc.version, doc.alive, CAST(doc.acl AS jsonb),
               CAST(doc.metadata AS jsonb), head.epoch, CASE WHEN doc.metadata_changed THEN head.epoch ELSE 0 END
        FROM head, unnest(CAST(:doc_ids AS bigint[]), CAST(:doc_keys AS text[]), CAST(:doc_versions AS bigint[]),
                          CAST(:doc_alive AS boolean[]), CAST(:doc_acls AS text[]), CAST(:doc_metadata AS text[]),
                          CAST(:doc_metadata_changed AS boolean[]))
             AS doc(id, key, version, alive, acl, metadata, metadata_changed)
        ON CONFLICT (corpus_id, id) DO UPDATE SET
            key = excluded.key, version = excluded.version, alive = excluded.alive, acl = excluded.acl,
            metadata = excluded.metadata, touched_epoch = excluded.touched_epoch,
            metadata_epoch = greatest(d.metadata_epoch, excluded.metadata_epoch)
    )
    INSERT INTO commit_log (corpus_id, epoch, committed_at, actor, reason, idempotency_key, request_hash,
                            summary, prev_hash, hash)
    SELECT id, epoch, committed_at, :actor, :reason, :idempotency_key, CAST(:request_hash AS bytea),
           CAST(:summary AS jsonb), CAST(:prev_hash AS bytea),
           sha256(CAST(:prev_hash AS bytea) || CAST(:digest AS bytea) || int8send(epoch)
                  || int8send(CAST(extract(epoch FROM committed_at) * 1000000 AS bigint)))
    FROM head
    RETURNING epoch, committed_at
""")


async def find(connection: Connection, corpus: CorpusId, idempotency_key: str) -> Logged | None:
    """The commit that was made under this key."""
    row = await connection.first(_LOGGED, {"corpus": corpus, "key": idempotency_key})
    if row is None:
        return None
    documents = [wire.DocumentChange(**document) for document in row.summary]
    return Logged(Epoch(row.epoch), row.committed_at, row.request_hash, documents)


async def lock(connection: Connection, corpus: CorpusId) -> None:
    """Keep other commits of the corpus out until the connection's transaction ends."""
    await connection.fetch(_LOCK, {"corpus": corpus})


async def read_before(connection: Connection, corpus: CorpusId, keys: Iterable[str], *, with_hashes: bool) -> Before:
    """The head and the documents under `keys`, for planning. Raises ``CorpusNotFound``.

    Content hashes are what a put compares; for operations without one they need not be read.
    """
    rows = await connection.fetch(_BEFORE, {"corpus": corpus, "keys": list(keys)})
    if not rows:
        raise CorpusNotFound("the corpus was deleted meanwhile")
    chunk_ids = [chunk_id for row in rows for chunk_id in row.chunk_ids or ()]
    hashes = await _content_hashes(connection, corpus, chunk_ids) if with_hashes else {}
    return Before(
        head=Epoch(rows[0].head),
        generation=GenerationId(rows[0].generation_id),
        hash=rows[0].hash or HASH_BEFORE_FIRST,
        documents=[_document_state(row, hashes) for row in rows if row.id is not None],
        newest_versions={row.key: row.newest_version for row in rows if row.newest_version is not None},
    )


def _document_state(row: Row, hashes: Mapping[int, bytes]) -> DocumentState:
    return DocumentState(
        key=row.key,
        document_id=DocumentId(row.id),
        version=row.version,
        alive=row.alive,
        title=row.title,
        uri=row.uri,
        metadata=row.metadata,
        acl=row.acl,
        slots=[Slot(hashes.get(chunk_id, NOT_READ), ChunkId(chunk_id)) for chunk_id in row.chunk_ids],
    )


async def _content_hashes(connection: Connection, corpus: CorpusId, chunk_ids: Sequence[int]) -> dict[int, bytes]:
    if not chunk_ids:
        return {}
    rows = await connection.fetch(_CONTENT_HASHES, {"corpus": corpus, "ids": chunk_ids})
    return {row.id: row.content_hash for row in rows}


async def known_vectors(
    connection: Connection, corpus: CorpusId, generation: GenerationId, hashes: Sequence[bytes]
) -> dict[bytes, NDArray[np.float32]]:
    """Vectors that content with these hashes was given before, so that it need not be embedded again."""
    if not hashes:
        return {}
    parameters = {"corpus": corpus, "generation": generation, "hashes": hashes}
    rows = await connection.fetch(_KNOWN_VECTORS, parameters)
    return {row.content_hash: np.frombuffer(row.vector, dtype="<f4") for row in rows}


async def write(
    connection: Connection,
    corpus: CorpusId,
    before: Before,
    plans: Sequence[DocumentPlan],
    vectors: Vectors,
    record: Record,
) -> Logged | None:
    """Commit the plans as the epoch after ``before.head``; None, and nothing written, if that is taken or another
    generation serves by now.

    `vectors` holds one for every chunk that is born, made for ``before.generation``.
    """
    changed = [plan for plan in plans if plan.changed]
    await _assign_ids(connection, changed)
    answers = [plan.answer() for plan in plans]
    documents = [answer.model_dump(mode="json") for answer in answers]
    parameters = {
        "corpus": corpus,
        "generation": before.generation,
        "expected": before.head,
        "payload_changed": any(plan.payload_changed for plan in changed),
        **_chunk_columns(changed, vectors),
        **_document_columns(changed),
        "actor": record.actor,
        "reason": record.reason,
        "idempotency_key": record.idempotency_key,
        "request_hash": record.request_hash,
        "summary": json.dumps(documents),
        "prev_hash": before.hash,
        "digest": content_digest(record.actor, record.reason, record.idempotency_key, record.request_hash, documents),
    }
    row = await _execute_write(connection, parameters)
    return None if row is None else Logged(Epoch(row.epoch), row.committed_at, record.request_hash, answers)


async def _execute_write(connection: Connection, parameters: Mapping[str, Any]) -> Row | None:
    try:
        return await connection.first(_WRITE, parameters)
    except UniqueViolationError as error:
        # The same idempotency key was committed between our look and our write: plan again, and find it.
        if "commit_log_idempotency_key" in str(error):
            return None
        raise


async def _assign_ids(connection: Connection, plans: Sequence[DocumentPlan]) -> None:
    slots = [slot for plan in plans for slot in plan.births]
    documents = [plan.after for plan in plans if plan.after.document_id is None]
    if not slots and not documents:
        return
    (ids,) = await connection.fetch(_NEW_IDS, {"chunks": len(slots), "documents": len(documents)})
    for slot, chunk_id in zip(slots, ids.chunks or (), strict=True):
        slot.chunk_id = ChunkId(chunk_id)
    for document, document_id in zip(documents, ids.documents or (), strict=True):
        document.document_id = DocumentId(document_id)


def _chunk_columns(plans: Sequence[DocumentPlan], vectors: Vectors) -> dict[str, Any]:
    deaths = [death for plan in plans for death in plan.deaths.items()]
    births = [(plan.after.document_id, slot, slot.piece) for plan in plans for slot in plan.births]
    return {
        "dead_ids": [chunk_id for chunk_id, _ in deaths],
        "dead_causes": [cause.value for _, cause in deaths],
        "touched_ids": [chunk_id for plan in plans if plan.payload_changed for chunk_id in plan.kept],
        "relabelled_documents": [plan.before.document_id for plan in plans if plan.relabelled],
        "born_ids": [slot.chunk_id for _, slot, _ in births],
        "born_documents": [document_id for document_id, _, _ in births],
        "born_hashes": [slot.content_hash for _, slot, _ in births],
        "born_texts": [piece.text for _, _, piece in births if piece is not None],
        "born_vectors": [vectors[slot.content_hash].astype("<f4").tobytes() for _, slot, _ in births],
    }


def _document_columns(plans: Sequence[DocumentPlan]) -> dict[str, Any]:
    ended = [(plan.before, cause) for plan in plans if (cause := plan.end_of_version) is not None]
    made = [plan.after for plan in plans if plan.after.alive]
    after = [plan.after for plan in plans]
    return {
        "ended_documents": [document.document_id for document, _ in ended],
        "ended_versions": [document.version for document, _ in ended],
        "ended_causes": [cause.value for _, cause in ended],
        "made_documents": [document.document_id for document in made],
        "made_versions": [document.version for document in made],
        "made_keys": [document.key for document in made],
        "made_titles": [document.title for document in made],
        "made_uris": [document.uri for document in made],
        "made_metadata": [json.dumps(document.metadata) for document in made],
        "made_acls": [json.dumps(document.acl) for document in made],
        "made_chunk_ids": ["{" + ",".join(str(slot.chunk_id) for slot in document.slots) + "}" for document in made],
        "doc_ids": [document.document_id for document in after],
        "doc_keys": [document.key for document in after],
        "doc_versions": [document.version for document in after],
        "doc_alive": [document.alive for document in after],
        "doc_acls": [json.dumps(document.acl) for document in after],
        "doc_metadata": [json.dumps(document.metadata) for document in after],
        "doc_metadata_changed": [plan.metadata_changed for plan in plans],
    }
