"""The second look: one suspect at a time, at both stores, by id. What it confirms is drift and no work in flight.

The ledger is read, then the index, then the ledger again. A difference counts only where both readings of the ledger
agree on the chunk and both say that the index was due to hold it so: whatever commits, the indexer, collections and
late leaders did meanwhile has changed one of the two.
"""

from __future__ import annotations

from collections.abc import Collection as AnyOf
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ragver.errors import CorpusNotFound
from ragver.index.port import Collection, Comparable, Match, Search, StoredPoint
from ragver.index.scoring import scores
from ragver.ledger import chunks, scanning
from ragver.ledger.chunks import Change
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.ledger.scanning import Moment
from ragver.reconciler import diff
from ragver.reconciler.diff import Drift
from ragver.types import ChunkId, Distance, DocumentId, DriftKind, Epoch

LOOKS_MAX = 500
"""Suspects that are looked at together."""
REACH_LIMITS = (10, 1_000)
"""How many of the nearest are asked for, first and at last, when a point is searched by its own vector."""
NEAR_ENOUGH = 1e-5
"""Scores that differ by less are as good as equal: engines add up in another order."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Drift that the second look has found."""

    chunk_id: ChunkId
    document_id: DocumentId | None
    drift: Drift


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the ledger has of some chunks; where it stood was read before."""

    moment: Moment
    changes: Mapping[ChunkId, Change]


class Searching(Protocol):
    """What of an index finds a point by its vector."""

    async def search(self, collection: Collection, search: Search) -> list[Match]:
        """As the index port says."""


class Looker:
    """Looks at suspects of one generation."""

    def __init__(
        self, database: Database, index: Comparable, searching: Searching, standing: Standing, collection: Collection
    ) -> None:
        self._database = database
        self._index = index
        self._searching = searching
        self._standing = standing
        self._collection = collection

    async def confirmed(self, suspects: Sequence[ChunkId], reached: AnyOf[ChunkId] = ()) -> list[Confirmed]:
        """The drift among these chunks, in the order of their ids; those in `reached` must be found by search, too."""
        found: list[Confirmed] = []
        for start in range(0, len(suspects), LOOKS_MAX):
            found += await self._look(suspects[start : start + LOOKS_MAX], reached)
        return found

    async def _look(self, suspects: Sequence[ChunkId], reached: AnyOf[ChunkId]) -> list[Confirmed]:
        before = await self._read(suspects)
        # Asked before the index is: an erasure that is complete by now has left nothing there to be seen.
        going = await scanning.being_erased(self._database, self._standing.corpus, suspects)
        points = {
            point.chunk_id: point for point in await self._index.lookup(self._collection, suspects, with_vectors=True)
        }
        seen = {chunk_id: self._judge(before, chunk_id, points.get(chunk_id)) for chunk_id in suspects}
        drifted = {chunk_id: drift for chunk_id, drift in seen.items() if drift is not None and chunk_id not in going}
        for chunk_id in suspects:
            if chunk_id in reached and chunk_id in points and chunk_id not in drifted:
                unreachable = await self._unreachable(before, chunk_id)
                if unreachable is not None:
                    drifted[chunk_id] = unreachable
        return await self._still(drifted, before, points) if drifted else []

    async def _still(
        self, drifted: Mapping[ChunkId, Drift], before: _Reading, points: Mapping[ChunkId, StoredPoint]
    ) -> list[Confirmed]:
        """What of it another reading of the ledger does not explain."""
        after = await self._read(list(drifted))
        confirmed = []
        for chunk_id, drift in sorted(drifted.items()):
            change = after.changes.get(chunk_id)
            if not unmoved(before.changes.get(chunk_id), change) or diff.in_flight(change, after.moment):
                continue
            again = self._judge(after, chunk_id, points.get(chunk_id))
            # What no search finds may just have passed the horizon, and be on its way out.
            unreachable = drift.kind is DriftKind.UNREACHABLE and diff.wanted(change, after.moment)
            if again is None and not unreachable:
                continue
            confirmed.append(Confirmed(chunk_id, None if change is None else change.document_id, again or drift))
        return confirmed

    def _judge(self, reading: _Reading, chunk_id: ChunkId, point: StoredPoint | None) -> Drift | None:
        change = reading.changes.get(chunk_id)
        return diff.judge(self._collection, change, point, reading.moment, vectors=True)

    async def _read(self, chunk_ids: Sequence[ChunkId]) -> _Reading:
        corpus, generation = self._standing.corpus, self._standing.generation.generation_id
        moment = await scanning.moment(self._database, corpus, generation)
        if moment is None:
            raise CorpusNotFound("the corpus, or the index generation that was compared, is gone meanwhile")
        return _Reading(moment, await chunks.changes_of(self._database, corpus, generation, chunk_ids))

    async def _unreachable(self, reading: _Reading, chunk_id: ChunkId) -> Drift | None:
        change = reading.changes.get(chunk_id)
        # A chunk that nobody may read cannot be searched for.
        if change is None or not diff.wanted(change, reading.moment) or not change.acl:
            return None
        if diff.in_flight(change, reading.moment) or await self._reaches(change, reading.moment):
            return None
        return Drift(DriftKind.UNREACHABLE, {"searched": REACH_LIMITS[-1]})

    async def _reaches(self, change: Change, moment: Moment) -> bool:
        """Whether a search by the chunk's own vector finds it, or as many others that are no farther."""
        assert change.vector is not None
        epoch = moment.applied if change.died_epoch is None else Epoch(change.died_epoch - 1)
        crowded = False
        for limit in REACH_LIMITS:
            search = Search(change.vector, limit, epoch, change.acl)
            matches = await self._searching.search(self._collection, search)
            if any(match.chunk_id == change.chunk_id for match in matches):
                return True
            crowded = len(matches) == limit and self._crowded(change, matches[-1].score)
        return crowded

    def _crowded(self, change: Change, score: float) -> bool:
        """Whether the last match is as near as the chunk itself: then there was no room for it."""
        assert change.vector is not None
        distance: Distance = self._collection.distance
        own = float(scores(distance, change.vector[np.newaxis], change.vector)[0])
        slack = NEAR_ENOUGH * max(1.0, abs(own))
        return score >= own - slack if distance.larger_is_closer else score <= own + slack


def unmoved(one: Change | None, other: Change | None) -> bool:
    """Whether two readings of a chunk are of the same state of it."""
    if one is None or other is None:
        return one is other
    return (one.touched_epoch, one.died_epoch, one.vector is None) == (
        other.touched_epoch,
        other.died_epoch,
        other.vector is None,
    )
