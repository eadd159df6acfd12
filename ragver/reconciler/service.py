"""Begins reconciliations, goes on with those that were killed, and tells of them. One at a time in a corpus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragver import wire
from ragver.clock import Clock
from ragver.errors import CorpusNotFound, RagverError, ReconciliationNotFound, ReconciliationRunning
from ragver.index.port import Index
from ragver.ledger import corpora, generations, reconciliations, scanning
from ragver.ledger.corpora import CorpusInfo
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.ledger.reconciliations import Progress, Run, RunLock, Wanted
from ragver.reconciler import advice
from ragver.reconciler.comparing import comparable
from ragver.reconciler.repair import Apply
from ragver.reconciler.run import Reconciliation, Tools
from ragver.stamping import Sighting, Stamps
from ragver.telemetry import Metrics, logger
from ragver.types import DriftKind, GenerationState, History, RunState

FINDINGS_SHOWN_MAX = 1_000
"""Findings in one answer; the counts are of all."""


class Reconciler:
    """Runs reconciliations as tasks of this process: an answer that is given up does not end one."""

    def __init__(self, database: Database, index: Index, apply: Apply, clock: Clock, metrics: Metrics) -> None:
        self._database = database
        self._index = index
        self._apply = apply
        self._stamps = Stamps(database, index)
        self._clock = clock
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, name: str, request: wire.ReconciliationRequest, wait_s: float) -> wire.Reconciliation:
        """A run, its end awaited for up to `wait_s`. One that was killed and asked for the same is gone on with.

        Raises ``CorpusNotFound``, ``ReconciliationRunning``, or that a store is unavailable.
        """
        info = await corpora.get(self._database, name)
        begun: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._run(info, _wanted(request), begun), name=f"reconciliation-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        run = await begun
        await asyncio.wait([task], timeout=wait_s)
        return await self._told(run)

    async def get(self, name: str, run_id: str) -> wire.Reconciliation:
        """A run with its findings. Raises ``ReconciliationNotFound``."""
        info = await corpora.get(self._database, name)
        if not run_id.isascii() or not run_id.isdigit() or len(run_id) > 18:
            raise ReconciliationNotFound(f"{run_id!r} is no reconciliation's id; list them to see which there are")
        return await self._told(await reconciliations.get(self._database, info.corpus_id, int(run_id)))

    async def recent(self, name: str, limit: int) -> wire.ReconciliationList:
        """The last runs, newest first, without their findings."""
        info = await corpora.get(self._database, name)
        found = await reconciliations.recent(self._database, info.corpus_id, limit)
        return wire.ReconciliationList(
            reconciliations=[_wire(run) for run in found.runs], last_success=found.last_success, now=found.now
        )

    async def measure(self) -> None:
        """Set the metrics to what the last complete runs have left, whichever process made them."""
        for last in await reconciliations.latest(self._database):
            self._metrics.reconciled_time.labels(last.corpus_name).set(last.started_at.timestamp())
            for kind in DriftKind:
                self._metrics.drift.labels(last.corpus_name, kind).set(last.drift.get(kind, 0))

    async def close(self) -> None:
        """Leave off; whatever is under way can be gone on with."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, info: CorpusInfo, wanted: Wanted, begun: asyncio.Future[Run]) -> None:
        try:
            async with self._locked(info) as lock:
                standing, run = await self._begin(info, wanted)
                begun.set_result(run)
                await self._work(standing, run, lock)
        except Exception as error:  # noqa: BLE001 - a task's error is nobody's, if it is not told
            if not begun.done():
                begun.set_exception(error)
            else:
                logger.warning("reconciliation_broke_off", corpus=info.name, error=str(error), exc_info=_odd(error))
        except asyncio.CancelledError:
            begun.cancel()
            raise

    @asynccontextmanager
    async def _locked(self, info: CorpusInfo) -> AsyncIterator[RunLock]:
        async with reconciliations.run_lock(self._database, info.corpus_id) as lock:
            if lock is None:
                raise ReconciliationRunning(f"a reconciliation of {info.name!r} is under way; wait for its end")
            yield lock

    async def _work(self, standing: Standing, run: Run, lock: RunLock) -> None:
        tools = Tools(self._database, self._index, comparable(self._index), self._stamps, self._apply, self._clock)
        try:
            await Reconciliation(tools, standing, run, lock).work()
        except RagverError as error:
            # While the ledger is away, this cannot be said either: then the run is gone on with later.
            await reconciliations.finish(self._database, run, RunState.FAILED, f"{error.detail} ({error.code})")
        except Exception:
            await reconciliations.finish(self._database, run, RunState.FAILED, "an internal error; the log has it")
            raise
        found = {str(kind): count for kind, count in run.progress.found.items()}
        logger.info("reconciled", corpus=standing.corpus_name, run=run.id, found=found)

    async def _begin(self, info: CorpusInfo, wanted: Wanted) -> tuple[Standing, Run]:
        """A new run, or the one that a killed process has left, if it was to do the same."""
        standing = await self._standing(info)
        for left in await reconciliations.unfinished(self._database, info.corpus_id):
            if left.wanted == wanted and left.generation == standing.generation.generation_id:
                await reconciliations.resume(self._database, left)
                return standing, left
            await reconciliations.finish(self._database, left, RunState.FAILED, "it was killed, and not gone on with")
        moment = await scanning.moment(self._database, info.corpus_id, standing.generation.generation_id)
        if moment is None:
            raise CorpusNotFound(f"there is no corpus {info.name!r} any more")
        sighting = await self._settled(standing)
        expected = await scanning.size(self._database, info.corpus_id, standing.generation.generation_id)
        progress = Progress(moment.applied, sighting.history, expected=expected)
        generation = standing.generation.generation_id
        return standing, await reconciliations.begin(self._database, info.corpus_id, generation, wanted, progress)

    async def _settled(self, standing: Standing) -> Sighting:
        """What the stamp says, looked at again where it says something odd: the indexer may just begin anew."""
        sighting = Sighting(History.SAME, None)
        for _ in range(2):
            moment = await scanning.moment(self._database, standing.corpus, standing.generation.generation_id)
            sighting = await self._stamps.sighting(standing, standing.applied if moment is None else moment.applied)
            if sighting.history is History.SAME:
                break
        return sighting

    async def _standing(self, info: CorpusInfo) -> Standing:
        for standing in await generations.all_of(self._database):
            if standing.corpus == info.corpus_id and standing.state is GenerationState.SERVING:
                return standing
        raise CorpusNotFound(f"there is no corpus {info.name!r} any more")

    async def _told(self, run: Run) -> wire.Reconciliation:
        now = await reconciliations.get(self._database, run.corpus, run.id)
        found = await reconciliations.findings(self._database, now, FINDINGS_SHOWN_MAX)
        omitted = max(0, sum(now.progress.found.values()) - len(found))
        told = {"findings": [_finding(one) for one in found], "findings_omitted": omitted}
        return _wire(now).model_copy(update=told)


def _odd(error: Exception) -> bool:
    return not isinstance(error, RagverError)


def _wanted(request: wire.ReconciliationRequest) -> Wanted:
    return Wanted(request.repair, request.verify_vectors, request.max_drift_ratio, request.points_per_s)


def _wire(run: Run) -> wire.Reconciliation:
    progress = run.progress
    repaired = run.wanted.repair and run.state is RunState.COMPLETE
    return wire.Reconciliation(
        id=str(run.id),
        state=run.state,
        detail=run.detail,
        repair=run.wanted.repair,
        verify_vectors=run.wanted.verify_vectors,
        max_drift_ratio=run.wanted.max_drift_ratio,
        points_per_s=run.wanted.points_per_s,
        epoch=progress.epoch,
        history=progress.history,
        phase=progress.phase,
        points=progress.points,
        points_expected=progress.expected,
        in_flight=progress.in_flight,
        drift=sum(progress.found.values()),
        drift_ratio=advice.drift_ratio(progress),
        counts={kind: progress.found.get(kind, 0) for kind in DriftKind},
        repaired={
            kind: max(0, progress.found.get(kind, 0) - progress.remaining.get(kind, 0)) if repaired else 0
            for kind in DriftKind
        },
        started_at=run.started_at,
        finished_at=run.finished_at,
        resumed=run.resumed,
        findings=[],
        findings_omitted=0,
    )


def _finding(stored: reconciliations.StoredFinding) -> wire.Finding:
    found = stored.finding
    return wire.Finding(
        kind=found.kind,
        chunk_id=None if found.chunk_id is None else str(found.chunk_id),
        document_key=stored.document_key,
        evidence=dict(found.evidence),
        repaired=stored.repaired,
    )
