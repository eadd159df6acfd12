"""Carries the ledger's changes into the index and says how far it has come.

The ledger is the outbox: what has to be done are the chunks touched after the applied epoch. Everything is
idempotent, so a start from any point is right: points are inserted if they are not there, then deaths marked,
then payloads renewed where they are older, then the applied epoch advanced, conditional on the leader's term.
A leader that was paused and wakes up late repeats writes that change nothing, and cannot advance.

A generation beside the serving one follows in the same way, and gets its vectors on the way: where a chunk has none
yet, the indexing of that generation stops, and goes on when the builder has made it one. So an applied epoch never
passes a chunk that the index lacks, and a slow model keeps nobody but its own generation waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ragver.clock import Clock
from ragver.collection import collection_of, payload_of
from ragver.errors import LedgerUnavailable, Unavailable
from ragver.generations import Builder
from ragver.index.port import Index, Point
from ragver.ledger import chunks, generations
from ragver.ledger.chunks import Change
from ragver.ledger.database import Database
from ragver.ledger.generations import Elections, Leadership, Standing
from ragver.overlay import CHUNK_ID_LAST
from ragver.stamping import Stamps
from ragver.telemetry import Metrics, logger
from ragver.types import ChunkId, Epoch, GenerationId, GenerationState

BATCH_CHANGES_MAX = 2_000
RETRY_S = 1.0
"""How long to wait when a store is away, or when a corpus could not be served."""
CHECK_S = 10.0
"""How often to see whether a collection is still there, and still what it was."""


@dataclass(slots=True)
class _Progress:
    """Where the work on a generation stands: everything up to this place in (epoch, chunk) is in the index."""

    leadership: Leadership
    applied: Epoch
    """The applied epoch that the ledger has."""
    place: tuple[Epoch, ChunkId]
    check_at_s: float
    """By the monotonic clock."""
    stamping: bool
    """False where a stamp would hide that ledger and index are not of one history; reconciliation sees to that."""
    goal: Epoch
    """The head when the work began: a generation that has come so far is worth a check."""


class Indexer:
    """Keeps the index of every corpus up to date, for as long as it runs."""

    def __init__(
        self, database: Database, index: Index, builder: Builder, clock: Clock, poll_s: float, metrics: Metrics
    ) -> None:
        self._database = database
        self._index = index
        self._builder = builder
        self._clock = clock
        self._poll_s = poll_s
        self._metrics = metrics
        self._stamps = Stamps(database, index)
        self._woken = asyncio.Event()
        self._progress: dict[GenerationId, _Progress] = {}
        self._retry_at_s: dict[GenerationId, float] = {}
        self._aside: dict[GenerationId, asyncio.Task[None]] = {}
        """The builder's work; nothing is indexed for a generation while there is some."""

    def wake(self) -> None:
        """There is something to do now; do not wait for the next poll."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled. A store that is away is waited for."""
        try:
            while True:
                try:
                    async with generations.elections(self._database) as elections:
                        await self._serve(elections)
                except Unavailable as error:
                    logger.warning("indexer_waits", code=error.code, detail=error.detail)
                    await self._clock.sleep(RETRY_S)
        finally:
            await self._let_go_of_all_but(())

    async def _serve(self, elections: Elections) -> None:
        await self._let_go_of_all_but(())
        while True:
            await elections.check()
            self._woken.clear()
            standings = await generations.all_of(self._database)
            await self._let_go_of_all_but([standing.generation.generation_id for standing in standings])
            worked = [await self._try_step(elections, standing) for standing in standings]
            if not any(worked):
                await self._rest()

    async def _try_step(self, elections: Elections, standing: Standing) -> bool:
        """One step, and trouble with one corpus is not the others'."""
        generation = standing.generation.generation_id
        if self._clock.monotonic() < self._retry_at_s.get(generation, 0.0):
            return False
        try:
            return await self._step(elections, standing)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - strong reads depend on it in the end, so it never just stops
            known = isinstance(error, Unavailable)
            logger.warning("indexing_failed", corpus=standing.corpus_name, error=str(error), exc_info=not known)
            self._progress.pop(generation, None)
            self._retry_at_s[generation] = self._clock.monotonic() + RETRY_S
            return False

    async def _rest(self) -> None:
        # Not wait_for: until Python 3.12 it swallows a cancellation that comes together with the wake-up.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):
                await self._woken.wait()

    async def _step(self, elections: Elections, standing: Standing) -> bool:
        """One batch for one generation; False if there was nothing to do, or not yet."""
        if standing.state is GenerationState.SERVING:
            self._metrics.lag_epochs.labels(standing.corpus_name).set(standing.head - standing.applied)
        progress = await self._lead(elections, standing)
        if progress is None or standing.generation.generation_id in self._aside:
            return False
        if await self._lost(progress, standing):
            del self._progress[standing.generation.generation_id]
            return True
        if progress.place >= (standing.head, CHUNK_ID_LAST):
            self._consider_verifying(progress, standing)
            return False
        found = await chunks.changes(
            self._database,
            standing.corpus,
            standing.generation.generation_id,
            progress.place,
            BATCH_CHANGES_MAX,
        )
        ready = list(takewhile(lambda change: not change.awaits_vector, found))
        await self.apply(standing, ready)
        await self._advance(progress, standing, ready, found)
        # Before more vectors are made: where commits keep coming there are always some to make.
        self._consider_verifying(progress, standing)
        if len(ready) < len(found) and standing.generation.generation_id not in self._aside:
            awaiting = [change.chunk_id for change in found if change.awaits_vector]
            self._work_aside(standing, self._builder.fill(standing, awaiting))
        return len(ready) > 0 or not found

    def _consider_verifying(self, progress: _Progress, standing: Standing) -> None:
        """A generation that has come to where the head was is held against the ledger, before it may serve."""
        generation = standing.generation.generation_id
        due = standing.state is GenerationState.BUILDING and standing.verified is None
        if due and progress.applied >= progress.goal and generation in self._progress and generation not in self._aside:
            self._work_aside(standing, self._verify(progress, standing))

    async def _verify(self, progress: _Progress, standing: Standing) -> None:
        try:
            await self._builder.check(standing, progress.leadership, progress.applied)
        finally:
            # It may have to be applied anew.
            self._progress.pop(standing.generation.generation_id, None)

    def _work_aside(self, standing: Standing, work: Coroutine[Any, Any, None]) -> None:
        """Do something for a generation that may take long, beside the indexing of the others."""
        generation = standing.generation.generation_id

        def done(task: asyncio.Task[None]) -> None:
            if self._aside.get(generation) is task:
                del self._aside[generation]
            self.wake()

        task = asyncio.create_task(work, name=f"generation {generation}")
        self._aside[generation] = task
        task.add_done_callback(done)

    async def _let_go_of_all_but(self, kept: Sequence[GenerationId]) -> None:
        """Forget the work on other generations, and end what is done for them aside."""
        for generation in self._progress.keys() - kept:
            del self._progress[generation]
        ended = [self._aside[generation] for generation in self._aside.keys() - kept]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def _lead(self, elections: Elections, standing: Standing) -> _Progress | None:
        """Our progress on the generation, if we lead it; its collection exists from then on."""
        known = self._progress.get(standing.generation.generation_id)
        if known is not None:
            return known
        leadership = await elections.lead(standing.corpus, standing.generation.generation_id)
        if leadership is None:
            return None
        applied = await self._found_applied(leadership, standing)
        if applied is None:
            _say_lost(leadership, standing)
            return None
        sighting = await self._stamps.sighting(standing, applied)
        if sighting.ours:
            await self._stamps.set(standing, applied, leadership.term)
        else:
            logger.warning("index_of_another_history", corpus=standing.corpus_name, history=sighting.history)
        check_at_s = self._clock.monotonic() + CHECK_S
        progress = _Progress(
            leadership, applied, (applied, CHUNK_ID_LAST), check_at_s, sighting.ours, goal=standing.head
        )
        self._progress[standing.generation.generation_id] = progress
        return progress

    async def _lost(self, progress: _Progress, standing: Standing) -> bool:
        """Whether the collection was lost, or restored from a backup, under our hands: then begin again."""
        now_s = self._clock.monotonic()
        if now_s < progress.check_at_s:
            return False
        progress.check_at_s = now_s + CHECK_S
        if not await self._index.exists(collection_of(standing)):
            return True
        sighting = await self._stamps.sighting(standing, progress.applied)
        return sighting.held is not None or sighting.ours is not progress.stamping

    async def _found_applied(self, leadership: Leadership, standing: Standing) -> Epoch | None:
        """How far the collection is, which exists from then on; None if another process leads by now."""
        # Read again: the standing is from before the election, and the leader before us may have begun anew.
        applied, collection = await generations.applied(self._database, leadership), collection_of(standing)
        if applied and not await self._index.exists(collection):
            logger.warning("index_lost", corpus=standing.corpus_name, applied_epoch=applied)
            # Before it is made anew: nobody may take an empty collection for a full one.
            applied = Epoch(0) if await generations.reset(self._database, leadership) else None
        elif applied:
            applied = await self._still_applied(leadership, standing, applied)
        if applied is not None:
            await self._index.ensure(collection)
        return applied

    async def _still_applied(self, leadership: Leadership, standing: Standing, applied: Epoch) -> Epoch | None:
        """How far the collection is by its own stamp, which lies behind if it was restored from a backup."""
        sighting = await self._stamps.sighting(standing, applied)
        if sighting.held is None:
            return applied
        logger.warning("index_restored", corpus=standing.corpus_name, applied_epoch=applied, held_epoch=sighting.held)
        return sighting.held if await generations.reset(self._database, leadership, sighting.held) else None

    async def _advance(
        self, progress: _Progress, standing: Standing, applied: Sequence[Change], found: Sequence[Change]
    ) -> None:
        """Move on behind what was applied of the found; the applied epoch only ever names epochs that are complete."""
        if len(applied) == len(found) < BATCH_CHANGES_MAX:
            complete = standing.head
            progress.place = (complete, CHUNK_ID_LAST)
        else:
            first_left = found[len(applied)] if len(applied) < len(found) else found[-1]
            complete = Epoch(first_left.touched_epoch - 1)
            if applied:
                progress.place = (applied[-1].touched_epoch, applied[-1].chunk_id)
        if complete <= progress.applied:
            return
        if progress.stamping:
            # Before the ledger says so: a stamp that is behind the ledger tells of a restored index.
            await self._stamps.set(standing, complete, progress.leadership.term)
        if await generations.advance(self._database, progress.leadership, complete):
            progress.applied = complete
        else:
            _say_lost(progress.leadership, standing)
            del self._progress[standing.generation.generation_id]

    async def apply(self, standing: Standing, found: Sequence[Change]) -> None:
        """Make the index hold these changes; it may hold them already."""
        collection = collection_of(standing)
        payloads = {change.chunk_id: payload_of(collection, change) for change in found}
        points = [
            Point(change.chunk_id, change.vector, payloads[change.chunk_id])
            for change in found
            if change.vector is not None
        ]
        deaths = {change.chunk_id: change.died_epoch for change in found if change.died_epoch is not None}
        renewed = {
            change.chunk_id: payloads[change.chunk_id] for change in found if change.touched_epoch > change.born_epoch
        }
        await self._index.upsert(collection, points)
        await self._index.mark_dead(collection, deaths)
        await self._index.refresh_payload(collection, renewed)
        await self._take_back(standing, [point.chunk_id for point in points])
        self._metrics.indexed.inc(len(found))

    async def _take_back(self, standing: Standing, inserted: Sequence[ChunkId]) -> None:
        """Remove points whose vector has left the ledger since the changes were read: retention or an erasure may
        have removed them from the index before we inserted them, late."""
        if not inserted:
            return
        generation = standing.generation.generation_id
        kept = await chunks.with_vectors(self._database, standing.corpus, generation, inserted)
        gone = [chunk_id for chunk_id in inserted if chunk_id not in kept]
        if gone:
            logger.info("late_points_removed", corpus=standing.corpus_name, points=len(gone))
            await self._index.delete(collection_of(standing), gone)


def _say_lost(leadership: Leadership, standing: Standing) -> None:
    logger.warning("leadership_lost", corpus=standing.corpus_name, term=leadership.term)
