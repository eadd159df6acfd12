"""Runs of the reconciler, what they have found, and how far one is that has not ended.

A run that is killed is still *running* here, with the place up to which both its counts and its findings are
complete: they are written in one transaction. Who takes the run's lock next goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import text

from ragver.errors import ReconciliationNotFound
from ragver.ledger.database import Connection, Database, Row
from ragver.ledger.generations import LEADER_SILENCE_S_MAX
from ragver.types import ChunkId, CorpusId, DocumentId, DriftKind, Epoch, GenerationId, History, RunState

# Advisory locks live in one space per database: this half keeps ours apart from the indexer's and others'.
RUN_LOCK_CLASS = 0x72616777
FINDINGS_MAX = 10_000
"""Findings that are kept of one run; all are counted."""

PLACE_FIRST = ChunkId(0)
"""Before all chunks."""

RUNS_WITH_FINDINGS_MAX = 100
"""Runs of a corpus whose findings are kept; their counts are kept of all."""

Phase = Literal["compare", "repair"]
Counts = dict[DriftKind, int]


class Wanted(NamedTuple):
    """What was asked of a run."""

    repair: bool
    verify_vectors: bool
    max_drift_ratio: float
    points_per_s: int | None


@dataclass(slots=True)
class Progress:
    """How far a run is. Everything up to `place` is in the numbers."""

    epoch: Epoch
    history: History
    phase: Phase = "compare"
    place: ChunkId = PLACE_FIRST
    points: int = 0
    """Compared in the phase `compare`, those of both sides together, each once."""
    in_flight: int = 0
    """Of these, passed over because the indexer was to work on them."""
    expected: int = 0
    """About how many there will be."""
    found: Counts = field(default_factory=dict)
    remaining: Counts = field(default_factory=dict)
    """What a repair could not put right."""


@dataclass(frozen=True, slots=True)
class Finding:
    kind: DriftKind
    chunk_id: ChunkId | None
    document_id: DocumentId | None
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredFinding:
    finding: Finding
    document_key: str | None
    """The document's present key; None if the ledger knows no such document."""
    repaired: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the ledger has it."""

    id: int
    corpus: CorpusId
    generation: GenerationId
    wanted: Wanted
    state: RunState
    detail: str | None
    progress: Progress
    started_at: datetime
    finished_at: datetime | None
    resumed: int


class Repaired(NamedTuple):
    """What was gone over by a repair: everything after one place and up to another, but for some chunks."""

    after: ChunkId
    upto: ChunkId
    unrepaired: Sequence[ChunkId]


class Recent(NamedTuple):
    """The last runs, newest first, and when the last complete one began, by the clock that `now` is of."""

    runs: list[Run]
    last_success: datetime | None
    now: datetime


_COLUMNS = """
    id, corpus_id, generation_id, repair, verify_vectors, max_drift_ratio, points_per_s, state, detail, epoch, history,
    phase, place, points, in_flight, expected, found, remaining, started_at, finished_at, resumed
"""

_TRY_LOCK = text("SELECT pg_try_advisory_lock(:class, CAST(:corpus AS int)) AS locked")

_LIMIT_SILENCE = text("SELECT set_config('idle_session_timeout', :milliseconds, false)")

_ALIVE = text("SELECT 1")

# A new run.
_BEGIN = text(f"""
    INSERT INTO reconciliation (corpus_id, generation_id, repair, verify_vectors, max_drift_ratio, points_per_s,
                                state, epoch, history, phase, place, points, in_flight, expected, found, remaining)
    VALUES (:corpus, :generation, :repair, :verify_vectors, :max_drift_ratio, :points_per_s, 'running', :epoch,
            :history, 'compare', 0, 0, 0, :expected, '{{}}', '{{}}')
    RETURNING {_COLUMNS}
""")

# Of older runs only the counts stay.
_FORGET = text("""
    DELETE FROM finding WHERE corpus_id = :corpus AND reconciliation_id IN (
        SELECT id FROM reconciliation WHERE corpus_id = :corpus ORDER BY id DESC OFFSET :kept
    )
""")

# What a killed process has left.
_UNFINISHED = text(f"SELECT {_COLUMNS} FROM reconciliation WHERE corpus_id = :corpus AND state = 'running' ORDER BY id")

_RESUME = text("UPDATE reconciliation SET resumed = resumed + 1 WHERE corpus_id = :corpus AND id = :run")

# How far a run is now.
_CHECKPOINT = text("""
    UPDATE reconciliation SET phase = :phase, place = :place, points = :points, in_flight = :in_flight,
        expected = :expected, found = CAST(:found AS jsonb), remaining = CAST(:remaining AS jsonb), epoch = :epoch
    WHERE corpus_id = :corpus AND id = :run
""")

# Findings, numbered on from what there is, up to the bound.
_ADD_FINDINGS = text("""
    INSERT INTO finding (corpus_id, reconciliation_id, number, kind, chunk_id, document_id, evidence, repaired)
    SELECT :corpus, :run, CAST(:kept AS bigint) + f.number, f.kind, f.chunk_id, f.document_id,
           CAST(f.evidence AS jsonb), false
    FROM unnest(CAST(:kinds AS text[]), CAST(:chunks AS bigint[]), CAST(:documents AS bigint[]),
                CAST(:evidences AS text[])) WITH ORDINALITY AS f(kind, chunk_id, document_id, evidence, number)
    WHERE CAST(:kept AS bigint) + f.number <= :findings_max
""")

_KEPT = text("""
    SELECT COALESCE(max(number), 0) AS kept FROM finding WHERE corpus_id = :corpus AND reconciliation_id = :run
""")

# The end of a run, however it ended.
_FINISH = text("""
    UPDATE reconciliation SET state = :state, detail = :detail, finished_at = clock_timestamp()
    WHERE corpus_id = :corpus AND id = :run AND state = 'running'
""")

# What a repair has gone over is put right, but for what is named.
_REPAIRED = text("""
    UPDATE finding SET repaired = true
    WHERE corpus_id = :corpus AND reconciliation_id = :run AND chunk_id > :after AND chunk_id <= :upto
      AND chunk_id <> ALL(CAST(:unrepaired AS bigint[])) AND NOT repaired
""")

# The findings that are of no chunk but of the collection.
_COLLECTION_REPAIRED = text("""
    UPDATE finding SET repaired = true WHERE corpus_id = :corpus AND reconciliation_id = :run AND chunk_id IS NULL
""")

_GET = text(f"SELECT {_COLUMNS} FROM reconciliation WHERE corpus_id = :corpus AND id = :run")

# The newest runs, and the last success by the database's own clock.
_RECENT = text(f"SELECT {_COLUMNS} FROM reconciliation WHERE corpus_id = :corpus ORDER BY id DESC LIMIT :limit")

_LAST_SUCCESS = text("""
    SELECT clock_timestamp() AS now, (
        SELECT started_at FROM reconciliation WHERE corpus_id = :corpus AND state = 'complete'
        ORDER BY id DESC LIMIT 1
    ) AS last_success
""")

# The last complete run of every corpus: what monitoring is told.
_LATEST = text("""
    SELECT DISTINCT ON (c.id) c.name, r.found, r.remaining, r.repair, r.started_at
    FROM corpus c JOIN reconciliation r ON r.corpus_id = c.id AND r.state = 'complete'
    ORDER BY c.id, r.id DESC
""")

# Findings of a run with the keys that their documents have now.
_FINDINGS = text("""
    SELECT f.kind, f.chunk_id, f.document_id, f.evidence, f.repaired, d.key
    FROM finding f LEFT JOIN document d ON d.corpus_id = f.corpus_id AND d.id = f.document_id
    WHERE f.corpus_id = :corpus AND f.reconciliation_id = :run ORDER BY f.number LIMIT :limit
""")


class RunLock:
    """The right to reconcile a corpus, held by a connection of its own: PostgreSQL lets go however the holder ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def check(self) -> None:
        """Raise ``LedgerUnavailable`` if the connection, and with it the lock, is lost."""
        await self._connection.fetch(_ALIVE)


@asynccontextmanager
async def run_lock(database: Database, corpus: CorpusId) -> AsyncIterator[RunLock | None]:
    """The lock of a corpus until the end of the block; None if somebody else has it."""
    async with database.own_connection() as connection:
        await connection.fetch(_LIMIT_SILENCE, {"milliseconds": str(round(LEADER_SILENCE_S_MAX * 1000))})
        (answer,) = await connection.fetch(_TRY_LOCK, {"class": RUN_LOCK_CLASS, "corpus": corpus})
        yield RunLock(connection) if answer.locked else None


async def begin(
    database: Database, corpus: CorpusId, generation: GenerationId, wanted: Wanted, progress: Progress
) -> Run:
    """A new run. The caller holds the corpus's lock."""
    parameters = {
        "corpus": corpus,
        "generation": generation,
        **wanted._asdict(),
        "epoch": progress.epoch,
        "history": progress.history,
        "expected": progress.expected,
    }
    async with database.transaction() as connection:
        (row,) = await connection.fetch(_BEGIN, parameters)
        await connection.fetch(_FORGET, {"corpus": corpus, "kept": RUNS_WITH_FINDINGS_MAX})
    return _run(row)


async def unfinished(database: Database, corpus: CorpusId) -> list[Run]:
    """Runs that were begun and did not end. To the holder of the lock, they are what others have left."""
    return [_run(row) for row in await database.fetch(_UNFINISHED, {"corpus": corpus})]


async def resume(database: Database, run: Run) -> None:
    """Count one more process that goes on with a run."""
    async with database.autocommit() as connection:
        await connection.fetch(_RESUME, _key(run))


async def checkpoint(
    database: Database, run: Run, findings: Sequence[Finding], repaired: Repaired | None = None
) -> None:
    """Keep how far the run is together with what was found, and what was repaired, up to there."""
    progress = run.progress
    async with database.transaction() as connection:
        if findings:
            await _add(connection, run, findings)
        if repaired is not None:
            await connection.fetch(_REPAIRED, {**_key(run), **repaired._asdict()})
        await connection.fetch(
            _CHECKPOINT,
            {
                **_key(run),
                "epoch": progress.epoch,
                "phase": progress.phase,
                "place": progress.place,
                "points": progress.points,
                "in_flight": progress.in_flight,
                "expected": progress.expected,
                "found": json.dumps(progress.found),
                "remaining": json.dumps(progress.remaining),
            },
        )


async def _add(connection: Connection, run: Run, findings: Sequence[Finding]) -> None:
    (kept,) = await connection.fetch(_KEPT, _key(run))
    await connection.fetch(
        _ADD_FINDINGS,
        {
            **_key(run),
            "kept": kept.kept,
            "findings_max": FINDINGS_MAX,
            "kinds": [finding.kind for finding in findings],
            "chunks": [finding.chunk_id for finding in findings],
            "documents": [finding.document_id for finding in findings],
            "evidences": [json.dumps(finding.evidence) for finding in findings],
        },
    )


async def finish(
    database: Database,
    run: Run,
    state: RunState,
    detail: str | None = None,
    *,
    collection_repaired: bool = False,
) -> None:
    """End a run. `collection_repaired`: what it found of the collection itself was put right, too."""
    async with database.transaction() as connection:
        if collection_repaired:
            await connection.fetch(_COLLECTION_REPAIRED, _key(run))
        await connection.fetch(_FINISH, {**_key(run), "state": state, "detail": detail})


async def get(database: Database, corpus: CorpusId, run: int) -> Run:
    """A run of the corpus. Raises ``ReconciliationNotFound``."""
    rows = await database.fetch(_GET, {"corpus": corpus, "run": run})
    if not rows:
        raise ReconciliationNotFound(f"the corpus has had no reconciliation {run}; list them to see which there are")
    return _run(rows[0])


async def findings(database: Database, run: Run, limit: int) -> list[StoredFinding]:
    """The first findings of a run."""
    return [_stored(row) for row in await database.fetch(_FINDINGS, {**_key(run), "limit": limit})]


async def recent(database: Database, corpus: CorpusId, limit: int) -> Recent:
    """The last runs, and the database's clock."""
    rows = await database.fetch(_RECENT, {"corpus": corpus, "limit": limit})
    (last,) = await database.fetch(_LAST_SUCCESS, {"corpus": corpus})
    return Recent([_run(row) for row in rows], last.last_success, last.now)


class Latest(NamedTuple):
    """The drift that the last complete run of a corpus left, and when it began."""

    corpus_name: str
    drift: Counts
    started_at: datetime


async def latest(database: Database) -> list[Latest]:
    """For every corpus that was ever reconciled."""
    return [
        Latest(row.name, _counts(row.remaining if row.repair else row.found), row.started_at)
        for row in await database.fetch(_LATEST)
    ]


def _run(row: Row) -> Run:
    return Run(
        id=row.id,
        corpus=CorpusId(row.corpus_id),
        generation=GenerationId(row.generation_id),
        wanted=Wanted(row.repair, row.verify_vectors, row.max_drift_ratio, row.points_per_s),
        state=RunState(row.state),
        detail=row.detail,
        progress=Progress(
            epoch=Epoch(row.epoch),
            history=History(row.history),
            phase=row.phase,
            place=ChunkId(row.place),
            points=row.points,
            in_flight=row.in_flight,
            expected=row.expected,
            found=_counts(row.found),
            remaining=_counts(row.remaining),
        ),
        started_at=row.started_at,
        finished_at=row.finished_at,
        resumed=row.resumed,
    )


def _counts(found: Mapping[str, int]) -> Counts:
    return {DriftKind(kind): count for kind, count in found.items()}


def _stored(row: Row) -> StoredFinding:
    finding = Finding(
        DriftKind(row.kind),
        None if row.chunk_id is None else ChunkId(row.chunk_id),
        None if row.document_id is None else DocumentId(row.document_id),
        row.evidence,
    )
    return StoredFinding(finding, row.key, row.repaired)


def _key(run: Run) -> dict[str, int]:
    return {"corpus": run.corpus, "run": run.id}
