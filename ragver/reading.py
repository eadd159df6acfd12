"""What a read was asked, and what a search that began early went by."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragver import wire
from ragver.filters import Filter
from ragver.index.port import Match
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.liveness import CorpusView
from ragver.overlay import Question
from ragver.types import Epoch

EARLY_LAG_EPOCHS_MAX = 16
"""How far a search may have begun behind the head and still be used, if the index has moved on meanwhile: what
it has applied since then is read from the ledger."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as one corpus understands it."""

    view: CorpusView
    info: CorpusInfo
    """With the generation that the vector is for; the view may know of a later one by now."""
    request: wire.RetrieveRequest
    vector: NDArray[np.float32]
    condition: Filter | None

    def meant_for(self, head: Head) -> bool:
        """Whether the head is of the generation that the vector is for."""
        return head.generation == self.info.generation.generation_id

    def at(self, epoch: Epoch) -> Question:
        return Question(self.vector, epoch, self.request.principals, self.condition)


@dataclass(frozen=True, slots=True)
class Early:
    """A search that began before the head was known, and what it went by."""

    basis: Head
    matches: asyncio.Future[list[Match]]

    def usable(self, head: Head) -> bool:
        """Whether the tail since then can make up for what the search did not know."""
        if self.basis.applied == head.applied:
            return True
        # Behind an applied epoch that has gone back, the collection is another one.
        return self.basis.applied < head.applied and head.epoch - self.basis.applied <= EARLY_LAG_EPOCHS_MAX

    def discard(self) -> None:
        """Nobody waits for the matches any more, nor for the error in their place."""
        self.matches.cancel()
        self.matches.add_done_callback(lambda done: done.cancelled() or done.exception())
