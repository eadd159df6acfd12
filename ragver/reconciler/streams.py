"""Both stores in the order of their ids, side by side, a bounded part of each in memory."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from ragver.index.port import Collection, Comparable, Page
from ragver.ledger import scanning
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.reconciler import diff, sampling
from ragver.reconciler.diff import Describer, Expected
from ragver.types import ChunkId, Epoch

ROWS_MAX = 20_000
"""Chunks that are read from the ledger at once."""
AHEAD_MAX = 2
"""So many times that are read ahead."""
PAGE_POINTS_MAX = 500
"""Points that are read from the index, and compared, at once: while that takes, the event loop stands still."""
VECTOR_NUMBERS_MAX = 8_000_000
"""Where vectors are compared too, parts are so much smaller that they hold no more components than this: 32 MB."""
ID_LAST = ChunkId(2**63 - 1)


@dataclass(frozen=True, slots=True)
class Part:
    """All that both stores have in a range of ids, which ends with `last`."""

    last: ChunkId
    expected: Expected
    found: Page
    vectors: dict[ChunkId, bytes]
    """The ledger's, if they were asked for."""

    @property
    def points(self) -> int:
        """How many different ids there are on the two sides, about."""
        return max(len(self.found.ids), self.expected.ids.size)

    def suspects(self) -> diff.Ids:
        """The chunks in which the two sides differ at the first look; by their vectors, too, if these were read."""
        found = diff.suspects(self.expected, self.found)
        if self.found.vectors is None:
            return found
        return np.union1d(found, sampling.other_vectors(self.found, self.vectors))

    @property
    def in_flight(self) -> int:
        """How many of them nothing can be said of."""
        return int(self.expected.unsettled.sum())


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared: a generation with its collection, as of an epoch."""

    database: Database
    index: Comparable
    standing: Standing
    collection: Collection
    epoch: Epoch
    horizon: Epoch
    vectors: bool

    @property
    def rows_max(self) -> int:
        return min(ROWS_MAX, max(1, VECTOR_NUMBERS_MAX // self.collection.dimensions)) if self.vectors else ROWS_MAX


@dataclass(frozen=True, slots=True)
class _Ledgers:
    """The ledger's side of a part."""

    last: ChunkId
    expected: Expected
    vectors: dict[ChunkId, bytes]


async def parts(sides: Sides, after: ChunkId) -> AsyncGenerator[Part, None]:
    """Everything with an id above `after`, part by part. The ledger is read ahead of the index, never behind it."""
    points = _Points(sides, after)
    async with aclosing(_ahead(_ledger(sides, after))) as ledger:
        async for rows in ledger:
            while after < rows.last:
                last, found = await points.some(rows.last)
                yield Part(last, rows.expected.between(after, last), found, rows.vectors)
                after = last


async def _ledger(sides: Sides, after: ChunkId) -> AsyncGenerator[_Ledgers, None]:
    corpus, generation = sides.standing.corpus, sides.standing.generation.generation_id
    describer = Describer(sides.standing.filterable)
    while after < ID_LAST:
        rows = await scanning.rows(sides.database, corpus, generation, after, sides.rows_max)
        described = await scanning.descriptions(sides.database, corpus, diff.lives(rows)) if rows.ids.size else {}
        vectors: dict[ChunkId, bytes] = {}
        if sides.vectors and rows.ids.size:
            ends = ChunkId(int(rows.ids[0])), ChunkId(int(rows.ids[-1]))
            vectors = await scanning.vectors(sides.database, corpus, generation, *ends)
        after = ChunkId(int(rows.ids[-1])) if rows.ids.size == sides.rows_max else ID_LAST
        expected = describer.expected(rows, described, sides.epoch, sides.horizon)
        yield _Ledgers(after, expected, vectors)


async def _ahead(source: AsyncGenerator[_Ledgers, None]) -> AsyncGenerator[_Ledgers]:
    """The same, read by a task of its own, so that PostgreSQL works while the index is read."""
    ready: asyncio.Queue[_Ledgers | Exception | None] = asyncio.Queue(AHEAD_MAX)

    async def read() -> None:
        try:
            async with aclosing(source):
                async for part in source:
                    await ready.put(part)
            await ready.put(None)
        except Exception as error:  # noqa: BLE001 - raised where the parts are waited for
            await ready.put(error)

    reader = asyncio.create_task(read(), name="ledger-reader")
    try:
        while (part := await ready.get()) is not None:
            if isinstance(part, Exception):
                raise part
            yield part
    finally:
        reader.cancel()
        await asyncio.wait([reader])


class _Points:
    """The index's points, cut where the ledger's parts end."""

    def __init__(self, sides: Sides, after: ChunkId) -> None:
        self._sides = sides
        self._after = after
        self._ended = False
        self._left = Page([], [], None)

    async def some(self, last: ChunkId) -> tuple[ChunkId, Page]:
        """The next points, but none beyond `last`, and the id up to which they are all that there are."""
        if not self._left.ids and not self._ended:
            await self._read()
        cut = bisect_right(self._left.ids, last)
        taken, self._left = _slice(self._left, 0, cut), _slice(self._left, cut, len(self._left.ids))
        exhausted = not self._left.ids and not self._ended
        return (min(last, self._after) if exhausted else last), taken

    async def _read(self) -> None:
        limit = min(PAGE_POINTS_MAX, self._sides.rows_max)
        self._left = await self._sides.index.page(
            self._sides.collection, self._after, limit, with_vectors=self._sides.vectors
        )
        self._ended = len(self._left.ids) < limit
        self._after = ID_LAST if self._ended else ChunkId(self._left.ids[-1])


def _slice(page: Page, first: int, end: int) -> Page:
    vectors = None if page.vectors is None else page.vectors[first:end]
    return Page(page.ids[first:end], page.payloads[first:end], vectors)
