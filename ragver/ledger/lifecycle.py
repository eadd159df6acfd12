"""Index generations from their beginning to their end: begun beside the serving one, cut over to, retired.

A cut-over is one transaction. It holds the lock of the corpus row, so no commit can come between its last look and
the swap; and since it changes that row, every commit that was planned for the generation before notices.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ragver import wire
from ragver.errors import CorpusNotFound, GenerationInTheWay, GenerationNotFound
from ragver.ledger.corpora import INSERT_GENERATION, Generation, generation_of
from ragver.ledger.database import Connection, Database, Row
from ragver.ledger.generations import Leadership, key_of
from ragver.types import CorpusId, Epoch, GenerationId, GenerationState

FORGET_VECTORS_MAX = 10_000
"""Vectors of a dropped collection that one statement removes."""
DROPPED_AGAIN_S = 3_600
"""How long a dropped collection is dropped again and again: a leader that was paused may make it anew."""


@dataclass(frozen=True, slots=True)
class Account:
    """A generation as people want to see it."""

    generation: Generation
    state: GenerationState
    head: Epoch
    applied: Epoch
    verified: Epoch | None
    problem: str | None
    created_at: datetime
    chunks: int
    """Chunks that some readable epoch sees."""
    embedded: int
    """Of these, those that the generation has a vector of."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A collection that no generation has any more."""

    corpus: CorpusId
    generation: Generation


# Other beginnings and cut-overs of the corpus wait, and so do commits.
_LOCK = text("SELECT epoch, generation_id FROM corpus WHERE id = :corpus FOR NO KEY UPDATE")

# The generation beside the serving one, of which there is at most one.
_BESIDE = text("""
    SELECT id, state, embedding = CAST(:embedding AS jsonb) AS same FROM index_generation
    WHERE corpus_id = :corpus AND state IN ('building', 'standby')
""")

# Generations with the chunks that each has to hold and has vectors of; those of a retired one are not counted.
_ACCOUNTS = text("""
    SELECT g.id AS generation_id, g.collection, g.embedding, g.state, c.epoch, g.applied_epoch, g.verified_epoch,
           g.problem, g.created_at, needed.chunks, needed.embedded
    FROM corpus c JOIN index_generation g ON g.corpus_id = c.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS chunks, count(e.chunk_id) AS embedded
        FROM chunk k LEFT JOIN embedding e
            ON e.corpus_id = k.corpus_id AND e.generation_id = g.id AND e.chunk_id = k.id
        WHERE k.corpus_id = c.id AND k.text IS NOT NULL AND (k.died_epoch IS NULL OR k.died_epoch > c.horizon)
          AND g.state <> 'retired'
    ) needed
    WHERE c.id = :corpus AND (g.state <> 'retired' OR g.id = :generation)
      AND (CAST(:generation AS bigint) IS NULL OR g.id = :generation)
    ORDER BY g.id
""")

# How far a generation is behind the head.
_LAG = text("""
    SELECT c.epoch - g.applied_epoch AS lag FROM corpus c JOIN index_generation g ON g.corpus_id = c.id
    WHERE c.id = :corpus AND g.id = :generation
""")

# Whether the generation could serve: it has been checked, or has served before, and holds everything.
_MAY_SERVE = "(state = 'standby' OR state = 'building' AND verified_epoch IS NOT NULL) AND applied_epoch = :head"
_READY = text(f"SELECT {_MAY_SERVE} AS ready FROM index_generation WHERE corpus_id = :corpus AND id = :generation")

# The cut-over. It asks once more itself: the indexer may have found the collection lost since the last look.
_SWAP = text(f"""
    WITH target AS (
        UPDATE index_generation SET state = 'serving', problem = NULL
        WHERE corpus_id = :corpus AND id = :generation AND {_MAY_SERVE}
        RETURNING id
    ), former AS (
        UPDATE index_generation SET state = 'standby' FROM target
        WHERE index_generation.corpus_id = :corpus AND index_generation.id = :serving
    )
    UPDATE corpus SET generation_id = target.id FROM target WHERE corpus.id = :corpus RETURNING generation_id
""")

# A generation that does not serve ends, and what the index has to forget with it is written down.
_RETIRE = text("""
    WITH retired AS (
        UPDATE index_generation SET state = 'retired', problem = NULL
        WHERE corpus_id = :corpus AND id = :generation AND state IN ('building', 'standby')
        RETURNING corpus_id, id, collection, embedding
    )
    INSERT INTO dropped_collection (corpus_id, generation_id, collection, embedding)
    SELECT corpus_id, id, collection, embedding FROM retired
    RETURNING generation_id, collection, embedding
""")

_DROPPED = text("SELECT corpus_id, generation_id, collection, embedding FROM dropped_collection ORDER BY generation_id")

_FORGET_VECTORS = text("""
    DELETE FROM embedding WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id IN (
        SELECT chunk_id FROM embedding WHERE corpus_id = :corpus AND generation_id = :generation
        ORDER BY chunk_id LIMIT :limit
    )
    RETURNING chunk_id
""")

_FORGET_OLD = text("""
    DELETE FROM dropped_collection WHERE dropped_at < clock_timestamp() - make_interval(secs => :age_s)
""")

# The whole collection was compared at its applied epoch, the leader still leads, and no chunk lacks its vector.
_VERIFIED = text("""
    UPDATE index_generation SET verified_epoch = :epoch, problem = NULL
    WHERE corpus_id = :corpus AND id = :generation AND leader_term = :term AND applied_epoch = :epoch
      AND NOT EXISTS (
        SELECT 1 FROM corpus c JOIN chunk k ON k.corpus_id = c.id
        WHERE c.id = :corpus AND k.touched_epoch <= :epoch AND k.text IS NOT NULL
          AND (k.died_epoch IS NULL OR k.died_epoch > c.horizon)
          AND NOT EXISTS (
            SELECT 1 FROM embedding
            WHERE corpus_id = :corpus AND generation_id = :generation AND chunk_id = k.id
          )
      )
    RETURNING id
""")

# Why a generation does not get on; written only when it changes.
_PROBLEM = text("""
    UPDATE index_generation SET problem = :problem
    WHERE corpus_id = :corpus AND id = :generation AND problem IS DISTINCT FROM CAST(:problem AS text)
""")


async def begin(database: Database, corpus: CorpusId, embedding: wire.Embedding) -> tuple[GenerationId, bool]:
    """A generation that is built beside the serving one, and whether it was begun by this call: one that is being
    built with the same embedding goes on. Raises ``GenerationInTheWay`` when there is another beside."""
    wanted = {"corpus": corpus, "embedding": embedding.model_dump_json()}
    async with database.transaction() as connection:
        await _locked(connection, corpus)
        beside = await connection.first(_BESIDE, wanted)
        if beside is None:
            building = {"generation": None, "state": GenerationState.BUILDING.value}
            (made,) = await connection.fetch(INSERT_GENERATION, {**wanted, **building})
            return GenerationId(made.id), True
    if beside.same and beside.state == GenerationState.BUILDING:
        return GenerationId(beside.id), False
    raise _in_the_way(beside)


def _in_the_way(beside: Row) -> GenerationInTheWay:
    what = "stands by for a rollback" if beside.state == GenerationState.STANDBY else "is being built"
    return GenerationInTheWay(
        f"generation {beside.id} {what}, and there can be one beside the serving one; retire it first, with "
        f"`ragver index retire {beside.id}` or DELETE /v1/corpora/…/generations/{beside.id}"
    )


async def accounts(database: Database, corpus: CorpusId) -> list[Account]:
    """The generations that are not retired, the oldest first. Counts, so it takes time."""
    return [_account(row) for row in await database.fetch(_ACCOUNTS, {"corpus": corpus, "generation": None})]


async def account(database: Database, corpus: CorpusId, generation: GenerationId) -> Account:
    """One generation, also a retired one. Raises ``GenerationNotFound``."""
    rows = await database.fetch(_ACCOUNTS, {"corpus": corpus, "generation": generation})
    if not rows:
        raise GenerationNotFound(f"the corpus has no index generation {generation}; `ragver index status` lists them")
    return _account(rows[0])


async def lag(database: Database, corpus: CorpusId, generation: GenerationId) -> int:
    """How many epochs the generation is behind the head; 0 for one that is not there any more."""
    rows = await database.fetch(_LAG, {"corpus": corpus, "generation": generation})
    return rows[0].lag if rows else 0


class CutOver:
    """A cut-over under way: commits of the corpus wait until its block ends."""

    def __init__(self, connection: Connection, corpus: CorpusId, target: GenerationId, bounds: Row) -> None:
        self.head = Epoch(bounds.epoch)
        self.serving = GenerationId(bounds.generation_id)
        self._connection = connection
        self._parameters = {
            "corpus": corpus,
            "generation": target,
            "head": self.head,
            "serving": self.serving,
        }

    async def ready(self) -> bool:
        """Whether the target has been checked, or has served before, and its index holds everything by now."""
        row = await self._connection.first(_READY, self._parameters)
        return row is not None and bool(row.ready)

    async def swap(self) -> bool:
        """Let the target serve from the end of the block on; False, and nothing changed, if it is not ready."""
        return await self._connection.first(_SWAP, self._parameters) is not None


@asynccontextmanager
async def cutting_over(database: Database, corpus: CorpusId, target: GenerationId) -> AsyncIterator[CutOver]:
    """Hold the corpus's commits back for the length of the block; it ends in one commit of the ledger."""
    async with database.transaction() as connection:
        yield CutOver(connection, corpus, target, await _locked(connection, corpus))


async def _locked(connection: Connection, corpus: CorpusId) -> Row:
    row = await connection.first(_LOCK, {"corpus": corpus})
    if row is None:
        raise CorpusNotFound("the corpus was deleted meanwhile")
    return row


async def retire(database: Database, corpus: CorpusId, generation: GenerationId) -> Generation | None:
    """End a generation that is building or stands by; None if it does neither."""
    async with database.autocommit() as connection:
        row = await connection.first(_RETIRE, {"corpus": corpus, "generation": generation})
    return None if row is None else generation_of(row)


async def dropped(database: Database) -> list[Dropped]:
    """Collections that may still be in the index and must not be."""
    return [Dropped(CorpusId(row.corpus_id), generation_of(row)) for row in await database.fetch(_DROPPED)]


async def forget_vectors(database: Database, gone: Dropped) -> bool:
    """Remove vectors of a dropped collection from the ledger; False once there were none."""
    key = {"corpus": gone.corpus, "generation": gone.generation.generation_id}
    async with database.autocommit() as connection:
        return bool(await connection.fetch(_FORGET_VECTORS, {**key, "limit": FORGET_VECTORS_MAX}))


async def forget_dropped(database: Database) -> None:
    """Forget collections that were dropped so long ago that nobody can make them anew."""
    async with database.autocommit() as connection:
        await connection.fetch(_FORGET_OLD, {"age_s": DROPPED_AGAIN_S})


async def verified(database: Database, leadership: Leadership, epoch: Epoch) -> bool:
    """Say that the collection was found equal to the ledger at its applied epoch; False, and nothing is said, if the
    term is over, or if a chunk was passed over for which there was no vector."""
    async with database.autocommit() as connection:
        return await connection.first(_VERIFIED, {**key_of(leadership), "epoch": epoch}) is not None


async def note_problem(database: Database, corpus: CorpusId, generation: GenerationId, problem: str | None) -> None:
    """Say why a generation does not get on; None when it does again."""
    async with database.autocommit() as connection:
        await connection.fetch(_PROBLEM, {"corpus": corpus, "generation": generation, "problem": problem})


def _account(row: Row) -> Account:
    return Account(
        generation=generation_of(row),
        state=GenerationState(row.state),
        head=Epoch(row.epoch),
        applied=Epoch(row.applied_epoch),
        verified=None if row.verified_epoch is None else Epoch(row.verified_epoch),
        problem=row.problem,
        created_at=row.created_at,
        chunks=row.chunks,
        embedded=row.embedded,
    )
