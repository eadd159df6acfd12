"""Corpora and their heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import UniqueViolationError
from sqlalchemy import text

from ragver import wire
from ragver.errors import CorpusExists, CorpusNotFound
from ragver.ledger import answers
from ragver.ledger.chain import lineage_of
from ragver.ledger.database import Connection, Database, Row
from ragver.types import CorpusId, Distance, Epoch, FieldType, GenerationId, GenerationState, Lineage

FENCE_MARGIN_MS = 50
"""Waited beyond the verdicts' time, for clocks that do not tick alike: 50 ms in a minute is 830 ppm."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One index of a corpus: an embedding and the collection that holds its points."""

    generation_id: GenerationId
    collection: str
    embedding: wire.Embedding

    @property
    def dimensions(self) -> int:
        assert self.embedding.dimensions is not None, "the ledger only holds completed embeddings"
        return self.embedding.dimensions

    @property
    def distance(self) -> Distance:
        return self.embedding.distance


@dataclass(frozen=True, slots=True)
class CorpusInfo:
    """What does not change while a corpus exists, and the generation that served when this was read."""

    corpus_id: CorpusId
    name: str
    filterable: Mapping[str, FieldType]
    retention_s: int | None
    verdict_ttl_ms: int
    created_at: datetime
    generation: Generation

    @property
    def fence_s(self) -> float:
        """How long after a commit no verdict from before it can still be acted on."""
        return (self.verdict_ttl_ms + FENCE_MARGIN_MS) / 1000


@dataclass(frozen=True, slots=True)
class Head:
    """Where a corpus stands, all read in one statement."""

    epoch: Epoch
    horizon: Epoch
    payload_epoch: Epoch
    """The newest epoch that changed access or filterable metadata of chunks that lived on."""
    generation: GenerationId
    """The generation that serves."""
    applied: Epoch
    """The epoch up to which that generation's index holds every change."""
    lineage: Lineage
    """Of the head."""


@dataclass(frozen=True, slots=True)
class Figures:
    head: Head
    documents: int
    chunks: int


_INSERT = text("""
    INSERT INTO corpus (name, generation_id, filterable, retention_s, verdict_ttl_ms)
    VALUES (:name, nextval(pg_get_serial_sequence('index_generation', 'id')), CAST(:filterable AS jsonb),
            :retention_s, :verdict_ttl_ms)
    RETURNING id, generation_id
""")

# A collection's name tells the generation, and the ledger, since several ledgers may share an index.
INSERT_GENERATION = text("""
    INSERT INTO index_generation (corpus_id, id, embedding, collection, state)
    SELECT CAST(:corpus AS bigint), fresh.id, CAST(:embedding AS jsonb),
           'ragver_' || left(replace(CAST(ledger.id AS text), '-', ''), 12) || '_g' || fresh.id, :state
    FROM ledger, (SELECT coalesce(CAST(:generation AS bigint),
                                  nextval(pg_get_serial_sequence('index_generation', 'id'))) AS id) AS fresh
    RETURNING id
""")

_SERVING = "FROM corpus c JOIN index_generation g ON g.corpus_id = c.id AND g.id = c.generation_id"

_INFO_COLUMNS = f"""
    c.id, c.name, c.filterable, c.retention_s, c.verdict_ttl_ms, c.created_at,
    g.id AS generation_id, g.collection, g.embedding
    {_SERVING}
"""

# One corpus by its name.
_INFO = text(f"SELECT {_INFO_COLUMNS} WHERE c.name = :name")

# One corpus by its id.
_INFO_BY_ID = text(f"SELECT {_INFO_COLUMNS} WHERE c.id = :corpus")

# Every corpus, by name.
_INFOS = text(f"SELECT {_INFO_COLUMNS} ORDER BY c.name")

# The head: what every read and every verdict begins with.
_HASH = "(SELECT hash FROM commit_log WHERE corpus_id = c.id AND epoch = {epoch})"
_HEAD_COLUMNS = f"""
    c.epoch, c.horizon, c.payload_epoch, c.generation_id, g.applied_epoch, {_HASH.format(epoch="c.epoch")} AS hash
"""
_HEAD = text(f"SELECT {_HEAD_COLUMNS} {_SERVING} WHERE c.id = :corpus")

# The head, and the hash of an epoch that was seen before: another one than then if the ledger was restored since.
_HEAD_SINCE = text(f"SELECT {_HEAD_COLUMNS}, {_HASH.format(epoch=':seen')} AS seen {_SERVING} WHERE c.id = :corpus")

# The hash of the commit of an epoch.
_HASH_AT = text("SELECT hash FROM commit_log WHERE corpus_id = :corpus AND epoch = :epoch")

# Head and sizes.
_FIGURES = text(f"""
    SELECT {_HEAD_COLUMNS},
           (SELECT count(*) FROM document WHERE corpus_id = c.id AND alive) AS documents,
           (SELECT count(*) FROM chunk WHERE corpus_id = c.id AND died_epoch IS NULL) AS chunks
    {_SERVING} WHERE c.id = :corpus
""")

# The newest epoch committed by a time. FOR SHARE waits for a commit in flight, whose time may already lie
# before the one asked for: without it the same question could later have another answer.
_EPOCH_AT = text("""
    WITH settled AS (SELECT id, clock_timestamp() AS now FROM corpus WHERE id = :corpus FOR SHARE)
    SELECT now FROM settled
""")
_EPOCH_COMMITTED_BY = text("""
    SELECT epoch FROM commit_log WHERE corpus_id = :corpus AND committed_at <= :time
    ORDER BY committed_at DESC, epoch DESC LIMIT 1
""")

_LEDGER_ID = text("SELECT id FROM ledger")

# What the index has to forget with a corpus.
_DROP_COLLECTIONS = text("""
    INSERT INTO dropped_collection (corpus_id, generation_id, collection, embedding)
    SELECT corpus_id, id, collection, embedding FROM index_generation WHERE corpus_id = :corpus
    ON CONFLICT DO NOTHING
    RETURNING generation_id, collection, embedding
""")

# The generations first: without one, nobody can add a vector any more.
_TABLES_WITH_CORPUS = (
    "finding",
    "reconciliation",
    "index_generation",
    "pin",
    "erasure",
    "webhook_dead_letter",
    "webhook",
    "answer_citation",
    "answer",
    "embedding",
    "chunk",
    "document_version",
    "document",
    "commit_log",
)


async def ledger_id(database: Database) -> UUID:
    """Who this ledger is."""
    found: UUID = (await database.fetch(_LEDGER_ID))[0].id
    return found


async def create(database: Database, wanted: wire.CorpusCreate, embedding: wire.Embedding) -> CorpusInfo:
    """Make an empty corpus with one serving generation. Raises ``CorpusExists``."""
    try:
        async with database.transaction() as connection:
            await _insert(connection, wanted, embedding)
    except UniqueViolationError:
        raise CorpusExists(f"there is a corpus {wanted.name!r} already; choose another name or delete it") from None
    return await get(database, wanted.name)


async def _insert(connection: Connection, wanted: wire.CorpusCreate, embedding: wire.Embedding) -> None:
    parameters = {
        "name": wanted.name,
        "filterable": json.dumps(wanted.filterable),
        "retention_s": wanted.retention_s,
        "verdict_ttl_ms": wanted.verdict_ttl_ms,
    }
    (made,) = await connection.fetch(_INSERT, parameters)
    generation = {"corpus": made.id, "generation": made.generation_id, "state": GenerationState.SERVING.value}
    await connection.fetch(INSERT_GENERATION, {**generation, "embedding": embedding.model_dump_json()})


async def get(database: Database, name: str) -> CorpusInfo:
    """The corpus of this name. Raises ``CorpusNotFound``."""
    rows = await database.fetch(_INFO, {"name": name})
    if not rows:
        raise CorpusNotFound(f"there is no corpus {name!r}; create it with POST /v1/corpora or `ragver corpus create`")
    return _info(rows[0])


async def by_id(database: Database, corpus: CorpusId) -> CorpusInfo:
    """The corpus with this id as it is now. Raises ``CorpusNotFound``."""
    return _info(await _one(database, _INFO_BY_ID, corpus))


async def all_of(database: Database) -> list[CorpusInfo]:
    """Every corpus, by name."""
    return [_info(row) for row in await database.fetch(_INFOS)]


async def delete(database: Database, corpus: CorpusId) -> list[Generation]:
    """Remove a corpus and everything of it from the ledger.

    Its generations, whose collections the caller can drop; should he not come to it, the ledger remembers them.
    """
    async with database.transaction() as connection:
        # The locks first: a commit or a recording in flight ends before, and a later one finds no corpus.
        await connection.fetch(text("SELECT 1 FROM corpus WHERE id = :corpus FOR UPDATE"), {"corpus": corpus})
        await answers.shut_out(connection, corpus)
        dropped = await connection.fetch(_DROP_COLLECTIONS, {"corpus": corpus})
        for table in _TABLES_WITH_CORPUS:
            await connection.fetch(text(f"DELETE FROM {table} WHERE corpus_id = :corpus"), {"corpus": corpus})
        await connection.fetch(text("DELETE FROM corpus WHERE id = :corpus"), {"corpus": corpus})
    return [generation_of(row) for row in dropped]


async def head(database: Database, corpus: CorpusId) -> Head:
    """Where the corpus stands now. Raises ``CorpusNotFound``."""
    return _head(await _one(database, _HEAD, corpus))


async def head_since(database: Database, corpus: CorpusId, seen: Head) -> Head:
    """Where the corpus stands now, if its log still goes through `seen`.

    Raises ``CorpusNotFound`` if it does not: the ledger was restored from a backup meanwhile, and what was read of
    this corpus before may be of epochs that it has issued anew since.
    """
    rows = await database.fetch(_HEAD_SINCE, {"corpus": corpus, "seen": seen.epoch})
    if not rows or lineage_of(rows[0].seen) != seen.lineage:
        raise CorpusNotFound("the corpus was deleted meanwhile, or its ledger restored from a backup")
    return _head(rows[0])


async def lineage_at(database: Database, corpus: CorpusId, epoch: Epoch) -> Lineage:
    """The lineage of an epoch as the log has it now; of one that is not in it, that of none."""
    rows = await database.fetch(_HASH_AT, {"corpus": corpus, "epoch": epoch})
    return lineage_of(rows[0].hash if rows else None)


async def figures(database: Database, corpus: CorpusId) -> Figures:
    """Head and sizes. Counts, so it takes time in proportion to the corpus."""
    row = await _one(database, _FIGURES, corpus)
    return Figures(_head(row), row.documents, row.chunks)


async def epoch_at(database: Database, corpus: CorpusId, time: datetime) -> tuple[Epoch, datetime]:
    """The newest epoch committed by `time`, and the database's clock when it was looked up.

    The answer for a `time` that the clock has reached never changes.
    """
    now: datetime = (await _one(database, _EPOCH_AT, corpus)).now
    rows = await database.fetch(_EPOCH_COMMITTED_BY, {"corpus": corpus, "time": time})
    return Epoch(rows[0].epoch if rows else 0), now


async def _one(database: Database, statement: Any, corpus: CorpusId) -> Row:
    rows = await database.fetch(statement, {"corpus": corpus})
    if not rows:
        raise CorpusNotFound("the corpus was deleted meanwhile")
    return rows[0]


def _head(row: Row) -> Head:
    return Head(
        epoch=Epoch(row.epoch),
        horizon=Epoch(row.horizon),
        payload_epoch=Epoch(row.payload_epoch),
        generation=GenerationId(row.generation_id),
        applied=Epoch(row.applied_epoch),
        lineage=lineage_of(row.hash),
    )


def _info(row: Row) -> CorpusInfo:
    return CorpusInfo(
        corpus_id=CorpusId(row.id),
        name=row.name,
        filterable={name: FieldType(kind) for name, kind in row.filterable.items()},
        retention_s=row.retention_s,
        verdict_ttl_ms=row.verdict_ttl_ms,
        created_at=row.created_at,
        generation=generation_of(row),
    )


def generation_of(row: Row) -> Generation:
    """The generation in the columns `generation_id`, `collection` and `embedding`."""
    return Generation(GenerationId(row.generation_id), row.collection, wire.Embedding.model_validate(row.embedding))
