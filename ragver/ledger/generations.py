"""Index generations: who may advance one, and how far it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text

from ragver.ledger.corpora import Generation, generation_of
from ragver.ledger.database import Connection, Database, Row
from ragver.types import CorpusId, Epoch, FieldType, GenerationId, GenerationState

# Advisory locks live in one space per database: this half keeps ours apart from other programs'.
LEADER_LOCK_CLASS = 0x72616776
LEADER_SILENCE_S_MAX = 120.0
"""After so long without a word PostgreSQL takes the locks back. A leader speaks between any two batches; one that
is paused, or whose machine is gone, would else hold them for as long as TCP believes in it, which may be hours."""

EPOCH_NONE = Epoch(0)


@dataclass(frozen=True, slots=True)
class Link:
    """A commit's place in the chain of the log."""

    ledger: str
    """The ledger's id."""
    head: Epoch
    hash: str | None
    """None if the corpus has no commit of that epoch."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """The right to advance a generation, good until a later term begins."""

    corpus: CorpusId
    generation: GenerationId
    term: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A generation that has points, and how far it is behind its corpus."""

    corpus: CorpusId
    corpus_name: str
    head: Epoch
    filterable: Mapping[str, FieldType]
    generation: Generation
    state: GenerationState
    applied: Epoch
    verified: Epoch | None
    """The epoch at which the whole collection was found equal to the ledger; None if it was not compared yet."""
    problem: str | None
    """Why it does not get on, if it does not."""


# Session-level: PostgreSQL itself lets go when the leader's connection ends, however the leader ended.
_TRY_LEAD = text("SELECT pg_try_advisory_lock(:class, CAST(:generation AS int)) AS locked")

_LIMIT_SILENCE = text("SELECT set_config('idle_session_timeout', :milliseconds, false)")

_ALIVE = text("SELECT 1")

# A term begins: whoever led before can no longer advance.
_BEGIN_TERM = text("""
    UPDATE index_generation SET leader_term = leader_term + 1
    WHERE corpus_id = :corpus AND id = :generation RETURNING leader_term
""")

_FOLLOWING = """
    SELECT c.id AS corpus_id, c.name, c.epoch, c.filterable, g.id AS generation_id, g.collection, g.embedding,
           g.state, g.applied_epoch, g.verified_epoch, g.problem
    FROM index_generation g JOIN corpus c ON c.id = g.corpus_id
    WHERE g.state <> 'retired'
"""

# Every generation that has to follow its corpus, those that serve first.
_STANDINGS = text(f"{_FOLLOWING} ORDER BY g.state <> 'serving', g.id")

# The same, of one corpus.
_STANDINGS_OF_CORPUS = text(f"{_FOLLOWING} AND c.id = :corpus ORDER BY g.id")

# How far a generation is, as long as the term lasts and it is not retired.
_APPLIED = text("""
    SELECT applied_epoch FROM index_generation
    WHERE corpus_id = :corpus AND id = :generation AND leader_term = :term AND state <> 'retired'
""")

# Conditional on the term, and never backwards.
_ADVANCE = text("""
    UPDATE index_generation SET applied_epoch = :epoch
    WHERE corpus_id = :corpus AND id = :generation AND leader_term = :term AND applied_epoch <= :epoch
    RETURNING applied_epoch
""")

# The collection was found empty, not equal to the ledger, or restored from a backup: less is applied.
_RESET = text("""
    UPDATE index_generation SET applied_epoch = :epoch, verified_epoch = NULL
    WHERE corpus_id = :corpus AND id = :generation AND leader_term = :term
    RETURNING applied_epoch
""")


# A commit's hash in hexadecimal, and the head, which is NULL once the corpus is gone.
_LINK = text("""
    SELECT CAST(ledger.id AS text) AS ledger, c.epoch AS head, encode(l.hash, 'hex') AS hash
    FROM ledger
    LEFT JOIN corpus c ON c.id = :corpus
    LEFT JOIN commit_log l ON l.corpus_id = c.id AND l.epoch = :epoch
""")


class Elections:
    """Leadership of any number of generations, all held by one connection.

    When that connection is lost PostgreSQL lets go of the locks, and the terms that others begin end ours.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: dict[GenerationId, Leadership] = {}

    async def lead(self, corpus: CorpusId, generation: GenerationId) -> Leadership | None:
        """Our leadership of the generation, taken now if it was free; None while another process leads."""
        if generation not in self._held and await self._lock(generation):
            begun = await self._connection.first(_BEGIN_TERM, {"corpus": corpus, "generation": generation})
            if begun is not None:
                self._held[generation] = Leadership(corpus, generation, begun.leader_term)
        return self._held.get(generation)

    async def _lock(self, generation: GenerationId) -> bool:
        parameters = {"class": LEADER_LOCK_CLASS, "generation": generation}
        (answer,) = await self._connection.fetch(_TRY_LEAD, parameters)
        return bool(answer.locked)

    async def check(self) -> None:
        """Raise ``LedgerUnavailable`` if the connection, and with it every leadership, is lost."""
        await self._connection.fetch(_ALIVE)


@asynccontextmanager
async def elections(database: Database) -> AsyncIterator[Elections]:
    """Stand for leadership until the end of the block; PostgreSQL frees the locks however it ends."""
    async with database.own_connection() as connection:
        await connection.fetch(_LIMIT_SILENCE, {"milliseconds": str(round(LEADER_SILENCE_S_MAX * 1000))})
        yield Elections(connection)


async def all_of(database: Database) -> list[Standing]:
    """Every generation that has points and is kept up to date, with how far it is: those that serve first, then
    those that are building or stand by."""
    return [_standing(row) for row in await database.fetch(_STANDINGS)]


async def of_corpus(database: Database, corpus: CorpusId) -> list[Standing]:
    """Every generation of the corpus that is kept up to date."""
    return [_standing(row) for row in await database.fetch(_STANDINGS_OF_CORPUS, {"corpus": corpus})]


async def advance(database: Database, leadership: Leadership, epoch: Epoch) -> bool:
    """Say that the index holds every change up to `epoch`; False if the term is over."""
    async with database.autocommit() as connection:
        return await connection.first(_ADVANCE, {**key_of(leadership), "epoch": epoch}) is not None


async def applied(database: Database, leadership: Leadership) -> Epoch | None:
    """The applied epoch, which nobody else can change any more; None if the term is over."""
    async with database.autocommit() as connection:
        row = await connection.first(_APPLIED, key_of(leadership))
    return None if row is None else Epoch(row.applied_epoch)


async def reset(database: Database, leadership: Leadership, epoch: Epoch = EPOCH_NONE) -> bool:
    """Say that the index holds nothing that came after `epoch`; False if the term is over."""
    async with database.autocommit() as connection:
        return await connection.first(_RESET, {**key_of(leadership), "epoch": epoch}) is not None


async def link(database: Database, corpus: CorpusId, epoch: Epoch) -> Link:
    """The link of the log's chain at an epoch."""
    (row,) = await database.fetch(_LINK, {"corpus": corpus, "epoch": epoch})
    return Link(row.ledger, EPOCH_NONE if row.head is None else Epoch(row.head), row.hash)


def _standing(row: Row) -> Standing:
    return Standing(
        corpus=CorpusId(row.corpus_id),
        corpus_name=row.name,
        head=Epoch(row.epoch),
        filterable={name: FieldType(kind) for name, kind in row.filterable.items()},
        generation=generation_of(row),
        state=GenerationState(row.state),
        applied=Epoch(row.applied_epoch),
        verified=None if row.verified_epoch is None else Epoch(row.verified_epoch),
        problem=row.problem,
    )


def key_of(leadership: Leadership) -> dict[str, int]:
    """What a statement that only the leader may run goes by."""
    return {"corpus": leadership.corpus, "generation": leadership.generation, "term": leadership.term}
