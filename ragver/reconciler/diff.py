"""What the index must hold, and how what it holds differs. Pure: both sides in, differences out.

There are two looks. The first goes over everything, in columns, and only says which chunks are *suspect*: it may
be wrong about work in flight, never about a difference that stays. The second judges one suspect at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import ne
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragver.collection import payload_of
from ragver.filters import projection
from ragver.index.payload import (
    ACL,
    BORN_EPOCH,
    DIED_EPOCH,
    DOCUMENT_ID,
    META,
    RESTRICTED,
    TOUCHED_EPOCH,
    described,
    stored,
    with_epochs,
)
from ragver.index.port import Collection, Page, StoredPoint, Vector
from ragver.ledger.chunks import Change
from ragver.ledger.scanning import Description, Life, Moment, Rows
from ragver.types import ChunkId, DriftKind, Epoch, FieldType

Ids = NDArray[np.int64]

DESCRIPTIONS_MAX = 20_000
"""Different labels and metadata that are kept parsed."""

_NOTHING: Description = ("[]", "{}")
_EPOCHS = (BORN_EPOCH, DIED_EPOCH, TOUCHED_EPOCH)
_COMPARED = (DOCUMENT_ID, BORN_EPOCH, TOUCHED_EPOCH, RESTRICTED, ACL, META)


class Drift(NamedTuple):
    """A difference, and what shows it. The evidence holds epochs and the names of what differs, never what a
    document says: it is kept, and an erasure must not have to look for it."""

    kind: DriftKind
    evidence: Mapping[str, Any]


# ── the first look ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Expected:
    """Points as the ledger has them, in ascending id order."""

    ids: Ids
    payloads: Sequence[Mapping[str, Any]]
    optional: NDArray[np.bool_]
    """Whether the point may as well not be there: it waits for its removal."""
    unsettled: NDArray[np.bool_]
    """Whether it was touched after the epoch of the comparison: anything is right."""

    def between(self, after: ChunkId, last: ChunkId) -> Expected:
        """Those with an id above `after` and up to `last`."""
        first, end = np.searchsorted(self.ids, [after, last], side="right").tolist()
        cut = slice(first, end)
        return Expected(self.ids[cut], self.payloads[cut], self.optional[cut], self.unsettled[cut])


class Describer:
    """Turns the ledger's rows into what the index has to hold, and each text of labels or metadata only once."""

    def __init__(self, filterable: Mapping[str, FieldType]) -> None:
        self._filterable = filterable
        self._known: dict[Description, Mapping[str, Any]] = {}

    def expected(self, rows: Rows, described: Mapping[Life, Description], epoch: Epoch, horizon: Epoch) -> Expected:
        """The points of these chunks at `epoch`. Neighbours of one document mostly share their payload."""
        payloads: list[Mapping[str, Any]] = []
        for first, end in _runs(rows):
            payloads += [self._payload(rows, first, described)] * (end - first)
        optional = (rows.died > 0) & (rows.died <= horizon)
        return Expected(rows.ids, payloads, optional, rows.touched > epoch)

    def _payload(self, rows: Rows, row: int, described: Mapping[Life, Description]) -> Mapping[str, Any]:
        document, died = int(rows.documents[row]), int(rows.died[row])
        # A document that is gone from the ledger meanwhile makes its chunks suspect, which is what they are.
        part = self._described(described.get((document, died), _NOTHING))
        return with_epochs(part, document, int(rows.born[row]), died or None, int(rows.touched[row]))

    def _described(self, description: Description) -> Mapping[str, Any]:
        known = self._known.get(description)
        if known is None:
            if len(self._known) >= DESCRIPTIONS_MAX:
                self._known.clear()
            acl, metadata = map(json.loads, description)
            known = self._known[description] = described(acl, projection(metadata, self._filterable))
        return known


def lives(rows: Rows) -> list[Life]:
    """The lives of documents that decide the chunks' access and metadata, each once."""
    starts = [first for first, _ in _runs(rows)]
    return list(set(zip(rows.documents[starts].tolist(), rows.died[starts].tolist(), strict=True)))


def _runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Where neighbours begin, and end, to have the same payload."""
    if not rows.ids.size:
        return
    same = np.ones(rows.ids.size - 1, dtype=np.bool_)
    for column in (rows.documents, rows.born, rows.died, rows.touched):
        same &= column[1:] == column[:-1]
    starts = [0, *(np.flatnonzero(~same) + 1).tolist()]
    yield from zip(starts, [*starts[1:], rows.ids.size], strict=True)


def suspects(wanted: Expected, found: Page) -> Ids:
    """The chunks of a range of ids in which the two sides differ. Both hold all that they have in the range."""
    there = np.fromiter(found.ids, np.int64, len(found.ids))
    if wanted.ids.size == there.size and (wanted.ids == there).all():
        differ = list(compress(wanted.ids.tolist(), map(ne, wanted.payloads, found.payloads)))
        if not differ:
            return wanted.ids[:0]
    else:
        _, rows, points = np.intersect1d(wanted.ids, there, assume_unique=True, return_indices=True)
        pairs = zip(rows.tolist(), points.tolist(), strict=True)
        differ = [int(there[point]) for row, point in pairs if wanted.payloads[row] != found.payloads[point]]
    missing = np.setdiff1d(wanted.ids[~wanted.optional], there, assume_unique=True)
    unknown = np.setdiff1d(there, wanted.ids, assume_unique=True)
    suspected = np.concatenate([np.array(differ, dtype=np.int64), missing, unknown])
    return np.sort(suspected[~np.isin(suspected, wanted.ids[wanted.unsettled])])


# ── the second look ─────────────────────────────────────────────────────────────────────────────────────────


def wanted(change: Change | None, moment: Moment) -> bool:
    """Whether the index must hold the chunk: it has a vector, and some epoch that can be read sees it."""
    if change is None or change.vector is None:
        return False
    return change.died_epoch is None or change.died_epoch > moment.horizon


def in_flight(change: Change | None, moment: Moment) -> bool:
    """Whether the indexer may be at work on the chunk: then nothing can be said of its point."""
    return change is not None and change.touched_epoch > moment.applied


def judge(
    collection: Collection, change: Change | None, point: StoredPoint | None, moment: Moment, *, vectors: bool = False
) -> Drift | None:
    """How a point differs from its chunk; None if it does not, or if that cannot be said now.

    `change` is what the ledger has of the chunk and `moment` where it stood before that was read; the point is of
    after. With `vectors` they are compared too, which both sides then have to bring.
    """
    if in_flight(change, moment):
        return None
    if point is None:
        return Drift(DriftKind.MISSING, _epochs_of(change)) if wanted(change, moment) else None
    if change is None or change.vector is None:
        return _left_over(change, point)
    death = _death(change, point)
    if not wanted(change, moment):  # it waits for its removal, and only has to be invisible
        return death if death is not None and death.kind is DriftKind.ZOMBIE else None
    if death is not None:
        return death
    stale = _stale(collection, change, point)
    if stale is None and vectors and not same_vector(change.vector, point.vector):
        return Drift(DriftKind.VECTOR_MISMATCH, _epochs_of(change))
    return stale


def same_vector(ledgers: Vector, found: Vector | None) -> bool:
    """Bit for bit: engines keep what they are given."""
    return found is not None and np.array_equal(ledgers, found)


def _left_over(change: Change | None, point: StoredPoint) -> Drift:
    """The ledger has nothing, or nothing any more, that the point could be of."""
    alive = change is not None and change.died_epoch is not None and DIED_EPOCH not in point.payload
    return Drift(DriftKind.ZOMBIE if alive else DriftKind.ORPHAN, _both(change, point))


def _death(change: Change, point: StoredPoint) -> Drift | None:
    if point.payload.get(DIED_EPOCH) == change.died_epoch:
        return None
    marked = point.payload.get(DIED_EPOCH) is not None
    return Drift(DriftKind.BURIED if marked else DriftKind.ZOMBIE, _both(change, point))


def _stale(collection: Collection, change: Change, point: StoredPoint) -> Drift | None:
    right = stored(payload_of(collection, change))
    if right == point.payload:
        return None
    differ = [name for name in _COMPARED if right[name] != point.payload.get(name)]
    differ += sorted(set(point.payload) - set(right))
    return Drift(DriftKind.STALE_PAYLOAD, {**_both(change, point), "differ": differ})


def _epochs_of(change: Change | None) -> dict[str, Any]:
    if change is None:
        return {"ledger": None}
    epochs = (change.born_epoch, change.died_epoch, change.touched_epoch)
    return {"ledger": dict(zip(_EPOCHS, epochs, strict=True))}


def _both(change: Change | None, point: StoredPoint) -> dict[str, Any]:
    epochs = {name: value for name in _EPOCHS if isinstance(value := point.payload.get(name), int)}
    return {**_epochs_of(change), "index": epochs}
