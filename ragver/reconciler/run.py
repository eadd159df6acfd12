"""One reconciliation: a sweep over both stores that compares, and, where asked for, another one that repairs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from ragver.clock import Clock
from ragver.collection import collection_of
from ragver.errors import CollectionRunning, CorpusNotFound
from ragver.index.port import Comparable, Index
from ragver.ledger import reconciliations, retention, scanning
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.ledger.reconciliations import FINDINGS_MAX, PLACE_FIRST, Finding, Repaired, Run, RunLock
from ragver.ledger.scanning import Moment
from ragver.reconciler import advice, sampling, streams
from ragver.reconciler.looking import LOOKS_MAX, Confirmed, Looker
from ragver.reconciler.repair import Apply, Repairer
from ragver.reconciler.streams import ID_LAST, Part, Sides
from ragver.stamping import Stamps
from ragver.types import ChunkId, DriftKind, History, RunState

CHECKPOINT_S = 1.0
"""How often the place of a run is kept, and its lock looked after: so much has a killed one to do again."""
ROUNDS_MAX = 3
"""Repairing sweeps over stores that are not of one history, as long as each had to pass over chunks in flight."""
COLLECTOR_WAIT_S_MAX = 60
"""How long a repair waits for a collection that is under way."""
TERM_NONE = 0
"""The term in a stamp that no leader has set."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run works with."""

    database: Database
    index: Index
    comparable: Comparable
    """The same index, as one that can be compared."""
    stamps: Stamps
    apply: Apply
    clock: Clock


@dataclass(slots=True)
class _Stretch:
    """Neighbouring parts of both stores, with what has to be looked at again: together, since that is a few statements
    however many there are."""

    last: ChunkId = PLACE_FIRST
    points: int = 0
    in_flight: int = 0
    suspects: list[ChunkId] = field(default_factory=list)
    searched: set[ChunkId] = field(default_factory=set)
    """What is also searched for, by its own vector."""
    drift: list[Confirmed] = field(default_factory=list)


class Reconciliation:
    """The work of one run, from where it stands to its end."""

    def __init__(self, tools: Tools, standing: Standing, run: Run, lock: RunLock) -> None:
        self._tools = tools
        self._standing = standing
        self._run = run
        self._progress = run.progress
        self._lock = lock
        self._collection = collection_of(standing)
        self._looker = Looker(tools.database, tools.comparable, tools.index, standing, self._collection)
        self._repairer = Repairer(tools.database, tools.index, tools.apply, standing, self._looker)
        self._findings: list[Finding] = []
        self._unrepaired: list[ChunkId] = []
        self._begun_s = self._kept_s = tools.clock.monotonic()
        self._paced_points = 0

    async def work(self) -> None:
        """Compare; repair if that was asked for and the guards let it; say how it ended."""
        progress, wanted = self._progress, self._run.wanted
        if progress.history is History.FOREIGN:
            await self._finish(RunState.STOPPED, advice.of_history(progress.history))
            return
        if progress.epoch == 0 and not await self._tools.index.exists(self._collection):
            # A comparison that could not be made is no pass, unless there is nothing to compare.
            state = RunState.FAILED if progress.expected else RunState.COMPLETE
            await self._finish(state, advice.NOT_MADE)
            return
        if progress.phase == "compare":
            await self._compare()
        if wanted.repair and advice.drift_ratio(progress) > wanted.max_drift_ratio:
            await self._finish(RunState.STOPPED, advice.too_much(progress, wanted))
            return
        if wanted.repair and (any(progress.found.values()) or advice.of_two_histories(progress)):
            await self._repair()
        await self._finish(RunState.COMPLETE, advice.of_history(progress.history))

    async def _finish(self, state: RunState, detail: str | None) -> None:
        repaired = self._run.wanted.repair and state is RunState.COMPLETE
        whole = repaired and not self._progress.remaining.get(DriftKind.MISCONFIGURED)
        await reconciliations.finish(self._tools.database, self._run, state, detail, collection_repaired=whole)

    # comparing

    async def _compare(self) -> None:
        progress = self._progress
        if progress.place == PLACE_FIRST:
            for misfit in await self._tools.comparable.misfits(self._collection):
                self._found(Finding(DriftKind.MISCONFIGURED, None, None, {"what": misfit}))
        async with aclosing(self._sweep()) as stretches:
            async for stretch in stretches:
                for one in stretch.drift:
                    self._found(Finding(one.drift.kind, one.chunk_id, one.document_id, one.drift.evidence))
                progress.points += stretch.points
                progress.in_flight += stretch.in_flight
                await self._keep(stretch.last)
        progress.phase, progress.place = "repair", PLACE_FIRST

    def _found(self, finding: Finding) -> None:
        found = self._progress.found
        found[finding.kind] = found.get(finding.kind, 0) + 1
        if sum(found.values()) <= FINDINGS_MAX:
            self._findings.append(finding)

    # repairing

    async def _repair(self) -> None:
        async with self._alone():
            for _ in range(ROUNDS_MAX):
                in_flight = await self._repairing_sweep()
                if not in_flight or not advice.of_two_histories(self._progress):
                    break
                self._progress.place = PLACE_FIRST
            await self._repair_collection()
            whole = not in_flight and not any(self._progress.remaining.values())
            if whole and advice.of_two_histories(self._progress):
                await self._tools.stamps.set(self._standing, self._progress.epoch, TERM_NONE, replace=True)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nothing is removed for good meanwhile: a repair must not put back what a collection has just taken out."""
        for _ in range(COLLECTOR_WAIT_S_MAX):
            async with retention.collector(self._tools.database, self._standing.corpus) as alone:
                if alone:
                    yield
                    return
            await self._tools.clock.sleep(1)
        raise CollectionRunning(f"a collection has kept the repair waiting for {COLLECTOR_WAIT_S_MAX} s; run it again")

    async def _repairing_sweep(self) -> int:
        """Repair whatever differs; how many points were passed over."""
        progress, in_flight = self._progress, 0
        progress.epoch = (await self._moment()).applied
        async with aclosing(self._sweep()) as stretches:
            async for stretch in stretches:
                for one in await self._repairer.repair(stretch.drift, stretch.searched):
                    progress.remaining[one.drift.kind] = progress.remaining.get(one.drift.kind, 0) + 1
                    self._unrepaired.append(one.chunk_id)
                in_flight += stretch.in_flight
                await self._keep(stretch.last)
        return in_flight

    async def _repair_collection(self) -> None:
        if self._progress.found.get(DriftKind.MISCONFIGURED):
            await self._tools.index.ensure(self._collection)
            left = len(await self._tools.comparable.misfits(self._collection))
            self._progress.remaining.update({DriftKind.MISCONFIGURED: left} if left else {})

    # both

    async def _sweep(self) -> AsyncGenerator[_Stretch, None]:
        """The rest of both stores, with the drift in it: as much at once as is looked at, or kept, at once."""
        sides, stretch = await self._sides(), _Stretch()
        async with aclosing(streams.parts(sides, self._progress.place)) as parts:
            async for part in parts:
                self._add(stretch, part)
                await self._pace(part)
                if part.last == ID_LAST or len(stretch.suspects) >= LOOKS_MAX or self._due():
                    stretch.drift = await self._looker.confirmed(stretch.suspects, stretch.searched)
                    yield stretch
                    stretch = _Stretch()

    def _add(self, stretch: _Stretch, part: Part) -> None:
        whole, expected = self._run.wanted.verify_vectors, self._progress.expected
        samples = (sampling.COMPARED_POINTS, sampling.SEARCHED_POINTS)
        shares = [1.0 if whole else sampling.share(points, expected) for points in samples]
        compared, searched = sampling.sampled(part.expected, self._run.id, *shares)
        suspects = np.union1d(part.suspects(), compared)
        stretch.last = part.last
        stretch.points += part.points
        stretch.in_flight += part.in_flight
        stretch.suspects += map(ChunkId, suspects.tolist())
        stretch.searched.update(map(ChunkId, searched.tolist()))

    async def _sides(self) -> Sides:
        return Sides(
            database=self._tools.database,
            index=self._tools.comparable,
            standing=self._standing,
            collection=self._collection,
            epoch=self._progress.epoch,
            horizon=(await self._moment()).horizon,
            vectors=self._run.wanted.verify_vectors or advice.of_two_histories(self._progress),
        )

    async def _moment(self) -> Moment:
        corpus, generation = self._standing.corpus, self._standing.generation.generation_id
        moment = await scanning.moment(self._tools.database, corpus, generation)
        if moment is None:
            raise CorpusNotFound("the corpus, or the index generation that was compared, is gone meanwhile")
        return moment

    # getting on

    def _due(self) -> bool:
        return self._tools.clock.monotonic() - self._kept_s >= CHECKPOINT_S

    async def _pace(self, part: Part) -> None:
        """No faster than was asked for; and others want to get on, too, where the index is read without a wait."""
        self._paced_points += part.points
        pause_s = 0.0
        if self._run.wanted.points_per_s is not None:
            due_s = self._begun_s + self._paced_points / self._run.wanted.points_per_s
            pause_s = max(0.0, due_s - self._tools.clock.monotonic())
        await self._tools.clock.sleep(pause_s)

    async def _keep(self, place: ChunkId) -> None:
        """Keep how far it is, and all that was found up to there, if the lock is still ours."""
        await self._lock.check()
        repaired = None
        if self._progress.phase == "repair":
            repaired = Repaired(self._progress.place, place, self._unrepaired)
        self._progress.place = place
        await reconciliations.checkpoint(self._tools.database, self._run, self._findings, repaired)
        self._findings, self._unrepaired = [], []
        self._kept_s = self._tools.clock.monotonic()
