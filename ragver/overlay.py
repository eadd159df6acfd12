"""Chunks that are scored in the process, beside the index or in its place.

The tail holds the changes after the applied epoch. A chunk in it may be missing from the index, or be there
with labels and metadata of the past, so whatever the index says of such a chunk is put aside and the overlay's
word counts: scored with the same arithmetic, against the same filter and access labels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragver.errors import IndexLagging
from ragver.filters import Filter, matches
from ragver.index.port import Match
from ragver.index.scoring import scores
from ragver.ledger import chunks
from ragver.ledger.chunks import Change
from ragver.ledger.database import Database
from ragver.types import WILDCARD, ChunkId, CorpusId, Distance, Epoch, GenerationId

_ROWS_AT_FIRST = 256
SETTLED_DOCUMENTS_MAX = 20
"""Documents outside the tail that are held against a question one by one; where there are more, one may match."""
_NEVER = np.iinfo(np.int64).max
CHUNK_ID_LAST = ChunkId(2**63 - 1)


@dataclass(frozen=True, slots=True)
class Question:
    """What a retrieval asks of the index and the overlays alike."""

    vector: NDArray[np.float32]
    epoch: Epoch
    principals: Sequence[str]
    filter: Filter | None


class Overlay:
    """Changes as columns: the vectors in one growing matrix, the rest beside it."""

    def __init__(self, distance: Distance, dimensions: int) -> None:
        self._distance = distance
        self._row_of: dict[ChunkId, int] = {}
        self._changes: list[Change] = []
        self._vectors = np.empty((_ROWS_AT_FIRST, dimensions), np.float32)
        self._born = np.empty(_ROWS_AT_FIRST, np.int64)
        self._died = np.empty(_ROWS_AT_FIRST, np.int64)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, chunk_id: ChunkId) -> bool:
        return chunk_id in self._row_of

    @property
    def chunk_ids(self) -> Sequence[ChunkId]:
        return list(self._row_of)

    def extend(self, changes: Sequence[Change]) -> None:
        """Add changes; a later one of the same chunk replaces what was known of it."""
        for change in changes:
            row = self._row_of.get(change.chunk_id)
            if row is None:
                row = len(self._changes)
                self._row_of[change.chunk_id] = row
                self._changes.append(change)
                self._make_room(row)
            self._changes[row] = change
            self._born[row] = change.born_epoch
            self._died[row] = _NEVER if change.died_epoch is None else change.died_epoch
            self._vectors[row] = 0.0 if change.vector is None else change.vector
            if change.vector is None:
                # Retention or erasure has taken the vector: there is nothing left to find.
                self._died[row] = 0

    def _make_room(self, row: int) -> None:
        if row < len(self._born):
            return
        self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self._born = np.concatenate([self._born, np.empty_like(self._born)])
        self._died = np.concatenate([self._died, np.empty_like(self._died)])

    def since(self, epoch: Epoch) -> list[Change]:
        """What was touched after `epoch`."""
        return [change for change in self._changes if change.touched_epoch > epoch]

    def best(self, question: Question, limit: int, put_aside: Overlay | None = None) -> list[Match]:
        """The `limit` best chunks alive at the question's epoch that match and may be read, best first.

        Chunks that another overlay speaks for are left to it.
        """
        labels = {WILDCARD, *question.principals}
        found: list[Match] = []
        for row, score in self._alive_by_score(question, limit):
            change = self._changes[row]
            if labels.isdisjoint(change.acl) or (put_aside is not None and change.chunk_id in put_aside):
                continue
            if question.filter is None or matches(question.filter, change.metadata):
                found.append(Match(change.chunk_id, score))
            if len(found) == limit:
                break
        return found

    def _alive_by_score(self, question: Question, limit: int) -> Iterator[tuple[int, float]]:
        size = len(self._changes)
        alive = np.flatnonzero((self._born[:size] <= question.epoch) & (self._died[:size] > question.epoch))
        if not len(alive):
            return
        scored = scores(self._distance, self._vectors[:size], question.vector)[alive]
        distance = -scored if self._distance.larger_is_closer else scored
        for place in _ascending(distance, limit):
            yield int(alive[place]), float(scored[place])


def _ascending(values: NDArray[np.float32], likely: int) -> Iterator[int]:
    """Places of `values` in ascending order; sorts all of them only if more than a few are asked for."""
    few = 4 * likely
    if few < len(values):
        first = np.argpartition(values, few)[:few]
        yield from first[np.argsort(values[first], kind="stable")]
        rest = np.argsort(values, kind="stable")
        known = set(first.tolist())
        yield from (place for place in rest if int(place) not in known)
    else:
        yield from np.argsort(values, kind="stable")


class Tail:
    """The overlay of one generation: every change after ``since``, up to ``upto``, kept from read to read."""

    def __init__(
        self,
        database: Database,
        corpus: CorpusId,
        generation: GenerationId,
        distance: Distance,
        dimensions: int,
        rows_max: int,
    ) -> None:
        self._database = database
        self._corpus = corpus
        self.generation = generation
        self._shape = (distance, dimensions)
        self._rows_max = rows_max
        self._lock = asyncio.Lock()
        self._too_long_since: Epoch | None = None
        self.since = Epoch(0)
        self.upto = Epoch(0)
        self.overlay = Overlay(*self._shape)

    async def cover(self, applied: Epoch, head: Epoch) -> Overlay:
        """The overlay with every change in (applied, head], and perhaps more.

        Raises ``IndexLagging`` when they are more than a read may score.
        """
        async with self._lock:
            if self._too_long_since is not None and applied <= self._too_long_since:
                # Changes after an epoch only ever become more.
                raise self._too_long()
            self._let_go(applied)
            if self.upto < head:
                await self._extend(applied)
                self.upto = max(self.upto, head)
            return self.overlay

    def _let_go(self, applied: Epoch) -> None:
        """Start anew when the index has caught up, was made anew, or a slow read still goes by an earlier epoch;
        shrink when most rows are applied."""
        if applied >= self.upto or applied < self.since:
            self._restart(applied, [])
        elif len(self.overlay) > _ROWS_AT_FIRST:
            left = self.overlay.since(applied)
            if len(left) < len(self.overlay) // 2:
                self._restart(applied, left)

    def _restart(self, applied: Epoch, changes: Sequence[Change]) -> None:
        self.since = applied
        self.upto = max(self.upto, applied) if changes else applied
        self.overlay = Overlay(*self._shape)
        self.overlay.extend(changes)

    async def _extend(self, applied: Epoch) -> None:
        changes = await self._next_changes()
        if changes is None and len(self.overlay):
            # Rows that have been applied meanwhile or were touched again should not count: begin anew.
            self._restart(applied, [])
            changes = await self._next_changes()
        if changes is None:
            self._too_long_since = applied
            raise self._too_long()
        self.overlay.extend(changes)

    async def _next_changes(self) -> list[Change] | None:
        """What comes after the overlay; None if both together may be too long."""
        limit = self._rows_max - len(self.overlay) + 1
        after = (self.upto, CHUNK_ID_LAST)
        changes = await chunks.changes(self._database, self._corpus, self.generation, after, limit)
        return changes if len(changes) < limit else None

    def _too_long(self) -> IndexLagging:
        return IndexLagging(
            f"more than {self._rows_max} chunk changes wait for the indexer; let it catch up, "
            "read with a lower level, or raise RAGVER_TAIL_ROWS_MAX"
        )


def overlay_of(changes: Sequence[Change], distance: Distance, dimensions: int) -> Overlay:
    """An overlay for one read."""
    made = Overlay(distance, dimensions)
    made.extend(changes)
    return made


def merged(matches: Sequence[Match], more: Sequence[Match], distance: Distance) -> list[Match]:
    """Both lists in one, best first; ties go to the smaller id, so that the order is the same every time."""
    sign = -1.0 if distance.larger_is_closer else 1.0
    return sorted([*matches, *more], key=lambda match: (sign * match.score, match.chunk_id))


def without(found: Sequence[Match], overlays: Sequence[Overlay]) -> list[Match]:
    """The index's matches, less those that an overlay speaks for."""
    return [match for match in found if not any(match.chunk_id in overlay for overlay in overlays)]


async def beyond_the_tail(database: Database, corpus: CorpusId, question: Question, applied: Epoch) -> bool | None:
    """Whether anything that could answer the question lives outside the tail, where only the index finds it.

    None if the question's epoch is not the head any more: then nobody can say.
    """
    settled = await chunks.settled_documents(database, corpus, applied, SETTLED_DOCUMENTS_MAX + 1)
    if settled.head != question.epoch:
        return None
    labels = {WILDCARD, *question.principals}
    return len(settled.documents) > SETTLED_DOCUMENTS_MAX or any(
        not labels.isdisjoint(document.acl) and (question.filter is None or matches(question.filter, document.metadata))
        for document in settled.documents
    )
