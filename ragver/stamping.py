"""The stamp that a collection carries: whose changes it holds, and how far. With it a store that was restored from
a backup is told from one that only lags.

The indexer sets it before it moves the applied epoch, so a collection is always as far as the ledger says or
farther. What says otherwise has been restored: the index when its stamp is behind the applied epoch, the ledger when
it does not have, or has other than, the commit that the stamp names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from ragver.collection import collection_of
from ragver.index.port import Index, Stamp, Stamped
from ragver.ledger import generations
from ragver.ledger.database import Database
from ragver.ledger.generations import Link, Standing
from ragver.types import Epoch, History


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the stamp of a collection says."""

    history: History
    stamp: Stamp | None

    @property
    def ours(self) -> bool:
        """Whether the collection may be stamped with this ledger's epochs, without hiding what happened."""
        return self.history in (History.SAME, History.UNSTAMPED, History.EMPTIED, History.INDEX_OLDER)

    @property
    def held(self) -> Epoch | None:
        """How far the collection itself says that it is, where that can be less than what the ledger says."""
        match self.history:
            case History.EMPTIED:
                return Epoch(0)
            case History.INDEX_OLDER:
                return None if self.stamp is None else self.stamp.epoch
            case History.SAME | History.UNSTAMPED | History.LEDGER_OLDER | History.FORKED | History.FOREIGN:
                return None
            case _:
                assert_never(self.history)


class Stamps:
    """Sets and reads stamps. An index that keeps none is taken for one of the ledger's own history."""

    def __init__(self, database: Database, index: Index) -> None:
        self._database = database
        self._index = index

    async def set(self, standing: Standing, epoch: Epoch, term: int, *, replace: bool = False) -> None:
        """Say that the collection holds every change up to `epoch`, unless it says more already."""
        if isinstance(self._index, Stamped):
            link = await generations.link(self._database, standing.corpus, epoch)
            stamp = Stamp(link.ledger, epoch, link.hash or "", term)
            await self._index.stamp(collection_of(standing), stamp, replace=replace)

    async def sighting(self, standing: Standing, applied: Epoch) -> Sighting:
        """What the stamp says. `applied` was read from the ledger before this is asked."""
        if not isinstance(self._index, Stamped):
            return Sighting(History.SAME, None)
        collection = collection_of(standing)
        if applied == 0 and not await self._index.exists(collection):
            return Sighting(History.UNSTAMPED, None)
        stamp = await self._index.stamped(collection)
        if stamp is None:
            empty = applied > 0 and await self._index.count(collection) == 0
            return Sighting(History.EMPTIED if empty else History.UNSTAMPED, None)
        link = await generations.link(self._database, standing.corpus, stamp.epoch)
        return Sighting(read(stamp, link, applied), stamp)


def read(stamp: Stamp, link: Link, applied: Epoch) -> History:
    """What a stamp says of a ledger with this applied epoch, read before, and this link at the stamp's epoch, read
    after."""
    if stamp.ledger != link.ledger:
        return History.FOREIGN
    if stamp.epoch > link.head:
        return History.LEDGER_OLDER
    if stamp.epoch and stamp.chain != link.hash:
        return History.FORKED
    return History.INDEX_OLDER if stamp.epoch < applied else History.SAME
