"""Which points are looked at more closely in a run: a share of them, the same ones whenever the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ragver.index.port import Page
from ragver.reconciler.diff import Expected, Ids
from ragver.types import ChunkId

COMPARED_POINTS = 256
"""Points whose vectors are compared when not all are."""
SEARCHED_POINTS = 16
"""Points, of these, that are searched for: where there is no graph, each search looks at every point."""

_LARGEST = float(2**64 - 2**11)
"""The largest number of 64 bits that a float holds."""
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def share(points: int, expected: int) -> float:
    """The share of the `expected` points that makes about so many."""
    return min(1.0, points / max(1, expected))


def sampled(wanted: Expected, seed: int, *shares: float) -> list[Ids]:
    """For each share about so many of the points that the index has to hold. Which ones depends on `seed` and their
    ids only, and what is in a smaller share is in a larger one, too."""
    due = wanted.ids[~(wanted.optional | wanted.unsettled)]
    mixed = _mixed(due, seed)
    return [due if share >= 1.0 else due[mixed <= np.uint64(share * _LARGEST)] for share in shares]


def other_vectors(page: Page, ledgers: Mapping[ChunkId, bytes]) -> Ids:
    """The points whose vector is not, bit for bit, the ledger's."""
    assert page.vectors is not None
    differ = [
        chunk_id
        for chunk_id, vector in zip(page.ids, page.vectors, strict=True)
        if (right := ledgers.get(ChunkId(chunk_id))) is not None and right != vector.tobytes()
    ]
    return np.array(differ, dtype=np.int64)


def _mixed(ids: Ids, seed: int) -> NDArray[np.uint64]:
    """Evenly spread over all numbers (the finaliser of splitmix64)."""
    mixed = ids.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return mixed ^ (mixed >> np.uint64(31))
