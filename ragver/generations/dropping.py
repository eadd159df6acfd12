"""Sees to it that the index forgets the collections that no generation has any more.

The ledger remembers what is to be dropped from the transaction on that ends a generation or a corpus, so a crash
between ledger and index leaves nothing behind for good. Everything is dropped again for a while: a leader that was
paused may have made an empty collection anew.
"""

from __future__ import annotations

from ragver.clock import Clock
from ragver.collection import leftover_of
from ragver.errors import Unavailable
from ragver.index.port import Index
from ragver.ledger import lifecycle
from ragver.ledger.database import Database
from ragver.telemetry import logger

SWEEP_S = 30.0
"""How often to look for collections to drop."""


class Dropping:
    """Drops what is left over, for as long as it runs."""

    def __init__(self, database: Database, index: Index, clock: Clock) -> None:
        self._database = database
        self._index = index
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled. A store that is away is waited for."""
        while True:
            try:
                await self.sweep()
            except Unavailable as error:
                logger.warning("dropping_waits", code=error.code, detail=error.detail)
            await self._clock.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Drop every collection that is to be dropped, with its vectors in the ledger."""
        for gone in await lifecycle.dropped(self._database):
            await self._index.drop(leftover_of(gone.generation))
            while await lifecycle.forget_vectors(self._database, gone):
                pass
        await lifecycle.forget_dropped(self._database)
