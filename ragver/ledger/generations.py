"""Index generations: who may advance one, and how far it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ragver.ledger.database import Database
from ragver.types import CorpusId, Epoch, GenerationId

# Advisory locks live in one space per database: this half keeps ours apart from other programs'.
LEADER_LOCK_CLASS = 0x72616776


@dataclass(frozen=True, slots=True)
class Leadership:
    """The right to advance a generation, good until a later term begins."""

    corpus: CorpusId
    generation: GenerationId
    term: int


# Session-level: PostgreSQL itself lets go when the leader's connection ends, however the leader ended.
_TRY_LEAD = text("SELECT pg_try_advisory_lock(:class, CAST(:generation AS int))")
_RESIGN = text("SELECT pg_advisory_unlock(:class, CAST(:generation AS int))")

# A term begins: whoever led before can no longer advance.
_BEGIN_TERM = text("""
    UPDATE index_generation SET leader_term = leader_term + 1
    WHERE corpus_id = :corpus AND id = :generation RETURNING leader_term
""")

_APPLIED = text("SELECT applied_epoch FROM index_generation WHERE corpus_id = :corpus AND id = :generation")

# Conditional on the term, and never backwards.
_ADVANCE = text("""
    UPDATE index_generation SET applied_epoch = :epoch
    WHERE corpus_id = :corpus AND id = :generation AND leader_term = :term AND applied_epoch <= :epoch
    RETURNING applied_epoch
""")

# The collection was found empty: nothing is applied.
_RESET = text("""
    UPDATE index_generation SET applied_epoch = 0
    WHERE corpus_id = :corpus AND id = :generation AND leader_term = :term
""")


@asynccontextmanager
async def leadership(
    database: Database, corpus: CorpusId, generation: GenerationId
) -> AsyncIterator[Leadership | None]:
    """Try to lead the generation for the block; None while another process does.

    Holds one connection. When that connection is lost the lock is too, and another leader's term ends ours.
    """
    async with database.autocommit() as connection:
        parameters = {"class": LEADER_LOCK_CLASS, "generation": generation}
        if not (await connection.execute(_TRY_LEAD, parameters)).scalar_one():
            yield None
            return
        try:
            yield await _begin_term(connection, corpus, generation)
        finally:
            if not connection.invalidated:
                await connection.execute(_RESIGN, parameters)


async def _begin_term(connection: AsyncConnection, corpus: CorpusId, generation: GenerationId) -> Leadership | None:
    parameters = {"corpus": corpus, "generation": generation}
    term = (await connection.execute(_BEGIN_TERM, parameters)).scalar_one_or_none()
    return None if term is None else Leadership(corpus, generation, term)


async def applied(database: Database, leadership: Leadership) -> Epoch:
    """How far the generation is."""
    parameters = {"corpus": leadership.corpus, "generation": leadership.generation}
    rows = await database.fetch(_APPLIED, parameters)
    return Epoch(rows[0].applied_epoch if rows else 0)


async def advance(database: Database, leadership: Leadership, epoch: Epoch) -> bool:
    """Say that the index holds every change up to `epoch`; False if the term is over."""
    async with database.autocommit() as connection:
        result = await connection.execute(_ADVANCE, {**_key(leadership), "epoch": epoch})
        return result.one_or_none() is not None


async def reset(database: Database, leadership: Leadership) -> None:
    """Say that the index holds nothing."""
    async with database.autocommit() as connection:
        await connection.execute(_RESET, _key(leadership))


def _key(leadership: Leadership) -> dict[str, int]:
    return {"corpus": leadership.corpus, "generation": leadership.generation, "term": leadership.term}
