"""The horizon, the pins that hold it, and what lies behind it.

The horizon moves under the corpus's row lock, and a pin is made under the same lock. So a pin either is there when
the horizon moves, and holds it; or comes after, and is refused if its epoch has been passed. All times are the
database's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text

from ragver import wire
from ragver.errors import CorpusNotFound, EpochAhead, PinNotFound, SnapshotExpired, TooManyPins
from ragver.ledger.commits import lock
from ragver.ledger.database import Connection, Database
from ragver.types import ChunkId, CorpusId, Epoch

COLLECTOR_LOCK_CLASS = 0x72616778
PINS_MAX = 1_000
"""Pins of one corpus at a time."""

# Where the corpus stands, under the lock.
_BOUNDS = text("SELECT epoch, horizon FROM corpus WHERE id = :corpus")

_LIVING_PINS = text("SELECT count(*) AS pins FROM pin WHERE corpus_id = :corpus AND expires_at > clock_timestamp()")

_PIN = text("""
    INSERT INTO pin (corpus_id, epoch, expires_at)
    VALUES (:corpus, :epoch, clock_timestamp() + make_interval(secs => :ttl_s))
    RETURNING id, epoch, expires_at
""")

_UNPIN = text("DELETE FROM pin WHERE corpus_id = :corpus AND id = :pin AND expires_at > clock_timestamp() RETURNING id")

# Pins that still hold, oldest epoch first.
_PINS = text("""
    SELECT id, epoch, expires_at FROM pin WHERE corpus_id = :corpus AND expires_at > clock_timestamp()
    ORDER BY epoch, id
""")

_DROP_EXPIRED = text("DELETE FROM pin WHERE corpus_id = :corpus AND expires_at <= clock_timestamp()")

# An epoch can be read until another has been the head for the retention's time. Not one statement with the lock:
# its pins would be those from before it had to wait, and miss the one that it waited for.
_MOVE = text("""
    WITH due AS (
        SELECT least(
            coalesce((
                SELECT epoch FROM commit_log
                WHERE corpus_id = c.id AND committed_at <= clock_timestamp() - make_interval(secs => c.retention_s)
                ORDER BY committed_at DESC, epoch DESC LIMIT 1
            ), 0),
            -- `least` passes over the NULL of no pins.
            (SELECT min(epoch) FROM pin WHERE corpus_id = c.id AND expires_at > clock_timestamp())
        ) AS epoch
        FROM corpus c WHERE c.id = :corpus AND c.retention_s IS NOT NULL
    )
    UPDATE corpus SET horizon = due.epoch FROM due WHERE id = :corpus AND due.epoch > horizon
    RETURNING horizon
""")

# Chunks that no readable epoch can see any more and whose text still stands, in the order of their deaths. Of what
# the serving generation has not applied, the indexer may just be on its way with the vector.
_REMOVABLE = text("""
    SELECT id FROM chunk
    WHERE corpus_id = :corpus AND died_epoch <= :horizon AND text IS NOT NULL
      AND touched_epoch <= (SELECT g.applied_epoch FROM corpus c
                            JOIN index_generation g ON g.corpus_id = c.id AND g.id = c.generation_id
                            WHERE c.id = :corpus)
    ORDER BY died_epoch, id LIMIT :limit
""")

# The rows are locked in the order of their ids, in which an erasure locks them too. Not one statement with the
# removal, which would then not see a vector that was added while the lock was waited for.
_LOCK = text("""
    SELECT id FROM chunk
    WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[])) AND died_epoch <= :horizon AND text IS NOT NULL
    ORDER BY id FOR UPDATE
""")

# Vectors of all generations and texts go; the rest of the row stays as the tombstone.
_REMOVE = text("""
    WITH vectors AS (
        DELETE FROM embedding
        WHERE corpus_id = :corpus AND chunk_id = ANY(CAST(:ids AS bigint[]))
          AND generation_id = ANY(ARRAY(SELECT id FROM index_generation WHERE corpus_id = :corpus))
    )
    UPDATE chunk SET text = NULL WHERE corpus_id = :corpus AND id = ANY(CAST(:ids AS bigint[]))
""")

# Session-level: PostgreSQL itself lets go when the collector's connection ends, however it ended.
_TRY_COLLECT = text("SELECT pg_try_advisory_lock(:class, CAST(:corpus AS int)) AS locked")


@dataclass(frozen=True, slots=True)
class Horizon:
    """Where a corpus's readable epochs begin and end."""

    head: Epoch
    before: Epoch
    now: Epoch


async def pin(database: Database, corpus: CorpusId, epoch: Epoch, ttl_s: int) -> wire.Pin:
    """Hold the horizon at `epoch`. Raises ``SnapshotExpired``, ``EpochAhead`` or ``TooManyPins``."""
    async with database.transaction() as connection:
        await lock(connection, corpus)
        head, horizon = await _bounds(connection, corpus)
        if epoch < horizon:
            raise SnapshotExpired(f"epoch {epoch} lies before the horizon {horizon} and can no longer be held")
        if epoch > head:
            raise EpochAhead(f"epoch {epoch} has not been issued; the head is {head}")
        (living,) = await connection.fetch(_LIVING_PINS, {"corpus": corpus})
        if living.pins >= PINS_MAX:
            raise TooManyPins(f"the corpus has {PINS_MAX} pins; remove one that is not needed any more")
        (made,) = await connection.fetch(_PIN, {"corpus": corpus, "epoch": epoch, "ttl_s": ttl_s})
    return wire.Pin(pin_id=str(made.id), epoch=made.epoch, expires_at=made.expires_at)


async def unpin(database: Database, corpus: CorpusId, pin_id: int) -> None:
    """Let go of a pin. Raises ``PinNotFound``, also for one that has expired."""
    async with database.autocommit() as connection:
        if await connection.first(_UNPIN, {"corpus": corpus, "pin": pin_id}) is None:
            raise PinNotFound(f"there is no pin {pin_id} (any more)")


async def pins(database: Database, corpus: CorpusId) -> list[wire.Pin]:
    """The pins that hold now, the oldest epoch first."""
    rows = await database.fetch(_PINS, {"corpus": corpus})
    return [wire.Pin(pin_id=str(row.id), epoch=row.epoch, expires_at=row.expires_at) for row in rows]


async def move_horizon(database: Database, corpus: CorpusId) -> Horizon:
    """Move the horizon as far as retention and pins let it, in a commit of its own; expired pins go."""
    async with database.transaction() as connection:
        await lock(connection, corpus)
        head, before = await _bounds(connection, corpus)
        moved = await connection.first(_MOVE, {"corpus": corpus})
        await connection.fetch(_DROP_EXPIRED, {"corpus": corpus})
    return Horizon(head, before, before if moved is None else Epoch(moved.horizon))


async def _bounds(connection: Connection, corpus: CorpusId) -> tuple[Epoch, Epoch]:
    row = await connection.first(_BOUNDS, {"corpus": corpus})
    if row is None:
        raise CorpusNotFound("the corpus was deleted meanwhile")
    return Epoch(row.epoch), Epoch(row.horizon)


async def removable(database: Database, corpus: CorpusId, horizon: Epoch, limit: int) -> list[ChunkId]:
    """Up to `limit` chunks that died at or before the horizon, as the serving generation knows, and have not been
    removed."""
    rows = await database.fetch(_REMOVABLE, {"corpus": corpus, "horizon": horizon, "limit": limit})
    return [ChunkId(row.id) for row in rows]


async def remove(database: Database, corpus: CorpusId, horizon: Epoch, chunk_ids: Sequence[ChunkId]) -> int:
    """Remove texts and vectors of these chunks; how many had been there."""
    async with database.transaction() as connection:
        locked = await connection.fetch(_LOCK, {"corpus": corpus, "horizon": horizon, "ids": list(chunk_ids)})
        await connection.fetch(_REMOVE, {"corpus": corpus, "ids": [row.id for row in locked]})
    return len(locked)


@asynccontextmanager
async def collector(database: Database, corpus: CorpusId) -> AsyncIterator[bool]:
    """Whether this process is the one that collects in the corpus, until the end of the block."""
    async with database.own_connection() as connection:
        (answer,) = await connection.fetch(_TRY_COLLECT, {"class": COLLECTOR_LOCK_CLASS, "corpus": corpus})
        yield bool(answer.locked)
