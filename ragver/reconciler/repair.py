"""Puts right what the second look has confirmed, through the code by which the indexer writes.

What is written comes from a reading of the ledger made just before, and the ledger is read again afterwards: if it
has moved on, what it says now is written once more. So whatever commits and the indexer do meanwhile, the last word is
the ledger's. Nothing that was removed can come back in between: who repairs holds the lock that collections and
erasures need.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Collection as AnyOf

from ragver.collection import collection_of
from ragver.errors import LedgerMovesOn
from ragver.index.port import Index
from ragver.ledger import chunks
from ragver.ledger.chunks import Change
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.reconciler.looking import Confirmed, Looker, unmoved
from ragver.types import ChunkId

REPAIRS_MAX = 500
"""Points that are put right together."""
READINGS_MAX = 10
"""How often the ledger may move on under the same few chunks before that is given up."""

Apply = Callable[[Standing, Sequence[Change]], Awaitable[None]]
"""The indexer's way into the index."""


class Repairer:
    """Repairs the points of one generation. Everything may be repeated."""

    def __init__(self, database: Database, index: Index, apply: Apply, standing: Standing, looker: Looker) -> None:
        self._database = database
        self._index = index
        self._apply = apply
        self._standing = standing
        self._looker = looker
        self._collection = collection_of(standing)

    async def repair(self, drifted: Sequence[Confirmed], reached: AnyOf[ChunkId]) -> list[Confirmed]:
        """Put these points right; what could not be, is returned."""
        left: list[Confirmed] = []
        for start in range(0, len(drifted), REPAIRS_MAX):
            left += await self._repair([one.chunk_id for one in drifted[start : start + REPAIRS_MAX]], reached)
        return left

    async def _repair(self, chunk_ids: Sequence[ChunkId], reached: AnyOf[ChunkId]) -> list[Confirmed]:
        # What the index adds or marks by itself needs no gap in which the point is not there.
        await self._write(chunk_ids, anew=False)
        left = await self._looker.confirmed(chunk_ids, reached)
        if left:
            chunk_ids = [one.chunk_id for one in left]
            await self._write(chunk_ids, anew=True)
            left = await self._looker.confirmed(chunk_ids, reached)
        return left

    async def _write(self, chunk_ids: Sequence[ChunkId], *, anew: bool) -> None:
        """Make the index hold what the ledger has of these chunks, until the ledger has not changed meanwhile."""
        if anew:
            await self._index.delete(self._collection, chunk_ids)
        due = await self._read(chunk_ids)
        for _ in range(READINGS_MAX):
            await self._index.delete(self._collection, [one for one in due if _gone(due[one])])
            await self._apply(self._standing, [one for one in due.values() if one is not None and not _gone(one)])
            now = await self._read(chunk_ids)
            due = {chunk_id: now[chunk_id] for chunk_id in due if not unmoved(due[chunk_id], now[chunk_id])}
            if not due:
                return
        raise LedgerMovesOn(f"the ledger changed {len(due)} chunks faster than they could be repaired; run it again")

    async def _read(self, chunk_ids: Sequence[ChunkId]) -> dict[ChunkId, Change | None]:
        corpus, generation = self._standing.corpus, self._standing.generation.generation_id
        found = await chunks.changes_of(self._database, corpus, generation, chunk_ids)
        return {chunk_id: found.get(chunk_id) for chunk_id in chunk_ids}


def _gone(change: Change | None) -> bool:
    return change is None or change.vector is None
