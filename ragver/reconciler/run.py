"""One reconciliation: a sweep over both stores that compares, and, where asked for, another one that repairs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import numpy as np

from ragver.clock import Clock
from ragver.collection import collection_of
from ragver.errors import CollectionRunning, CorpusNotFound
from ragver.index.port import Comparable, Index
from ragver.ledger import reconciliations, retention, scanning
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.ledger.reconciliations import FINDINGS_MAX, Finding, Repaired, Run, RunLock
from ragver.ledger.scanning import Moment
from ragver.reconciler import advice, diff, sampling, streams
from ragver.reconciler.looking import Confirmed, Looker
from ragver.reconciler.repair import Apply, Repairer
from ragver.reconciler.streams import Part, Sides
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


@dataclass(frozen=True, slots=True)
class _Looked:
    """A part of both stores, with the drift in it."""

    part: Part
    searched: frozenset[ChunkId]
    """What was also searched for, by its own vector."""
    drift: list[Confirmed]


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
        self._kept_place = run.progress.place
        self._begun_s = self._kept_s = tools.clock.monotonic()
        self._paced_points = 0

    async def work(self) -> None:
        """Compare; repair if that was asked for and the guards let it; say how it ended."""
        progress, wanted = self._progress, self._run.wanted
        if progress.history is History.FOREIGN:
            await self._finish(RunState.STOPPED, advice.of_history(progress.history))
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
        if progress.place == 0:
            for misfit in await self._tools.comparable.misfits(self._collection):
                self._found(Finding(DriftKind.MISCONFIGURED, None, None, {"what": misfit}))
        async with aclosing(self._sweep()) as parts:
            async for looked in parts:
                for one in looked.drift:
                    self._found(Finding(one.drift.kind, one.chunk_id, one.document_id, one.drift.evidence))
                progress.points += looked.part.points
                progress.in_flight += looked.part.in_flight
                await self._moved_on(looked.part)
        await self._keep()
        progress.phase, progress.place, self._kept_place = "repair", ChunkId(0), ChunkId(0)

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
                self._progress.place = self._kept_place = ChunkId(0)
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
        async with aclosing(self._sweep()) as parts:
            async for looked in parts:
                for one in await self._repairer.repair(looked.drift, looked.searched):
                    progress.remaining[one.drift.kind] = progress.remaining.get(one.drift.kind, 0) + 1
                    self._unrepaired.append(one.chunk_id)
                in_flight += looked.part.in_flight
                await self._moved_on(looked.part)
        await self._keep()
        return in_flight

    async def _repair_collection(self) -> None:
        if self._progress.found.get(DriftKind.MISCONFIGURED):
            await self._tools.index.ensure(self._collection)
            left = len(await self._tools.comparable.misfits(self._collection))
            self._progress.remaining.update({DriftKind.MISCONFIGURED: left} if left else {})

    # both

    async def _sweep(self) -> AsyncGenerator[_Looked, None]:
        """The rest of both stores, part by part."""
        sides = await self._sides()
        async with aclosing(streams.parts(sides, self._progress.place)) as parts:
            async for part in parts:
                yield await self._looked(part)
                # The index may be read without a wait, and others want to get on as well.
                await asyncio.sleep(0)

    async def _looked(self, part: Part) -> _Looked:
        suspects = np.union1d(diff.suspects(part.expected, part.found), self._sample(part, sampling.COMPARED_POINTS))
        if part.found.vectors is not None:
            suspects = np.union1d(suspects, sampling.other_vectors(part.found, part.vectors))
        searched = frozenset(map(ChunkId, self._sample(part, sampling.SEARCHED_POINTS).tolist()))
        drift = await self._looker.confirmed(list(map(ChunkId, suspects.tolist())), searched)
        return _Looked(part, searched, drift)

    def _sample(self, part: Part, points: int) -> diff.Ids:
        share = 1.0 if self._run.wanted.verify_vectors else sampling.share(points, self._progress.expected)
        return sampling.sampled(part.expected, self._run.id, share)

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

    async def _moved_on(self, part: Part) -> None:
        self._progress.place = part.last
        self._paced_points += part.points
        if self._run.wanted.points_per_s is not None:
            due_s = self._begun_s + self._paced_points / self._run.wanted.points_per_s
            await self._tools.clock.sleep(max(0.0, due_s - self._tools.clock.monotonic()))
        if self._unrepaired or self._tools.clock.monotonic() - self._kept_s >= CHECKPOINT_S:
            await self._keep()

    async def _keep(self) -> None:
        """Keep how far it is, and all that was found up to there, if the lock is still ours."""
        await self._lock.check()
        repaired = None
        if self._progress.phase == "repair":
            repaired = Repaired(self._kept_place, self._progress.place, self._unrepaired)
        await reconciliations.checkpoint(self._tools.database, self._run, self._findings, repaired)
        self._findings, self._unrepaired = [], []
        self._kept_place, self._kept_s = self._progress.place, self._tools.clock.monotonic()
