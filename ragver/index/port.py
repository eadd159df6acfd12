"""What ragver asks of a vector index, on one page.

The index is a cache of the ledger: it may lag, lose or garble, and nothing it does may reach an answer. So the
contract is small. What an adapter must get right is durability (a method that returned has taken effect, also
after ``kill -9``) and idempotence (any call may be repeated, late and out of order, by a leader that was paused).

A collection belongs to one index generation of one corpus. A point is one chunk:

* it is written once and never moves: ``upsert`` keeps a point that is already there, whatever it holds;
* ``died_epoch`` is set at most once and never taken back;
* access and filterable metadata change, so they carry ``touched_epoch`` and a change applies only where it is newer.

Errors: ``IndexUnavailable`` when the engine cannot be reached or refuses; never an empty result in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragver.filters import Filter
from ragver.types import ChunkId, Distance, DocumentId, Epoch, FieldType

Vector = NDArray[np.float32]
Vectors = NDArray[np.float32]
"""A matrix, a vector in each row."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Where the points of one index generation live. `name` is unique in the ledger and safe as a file name."""

    name: str
    dimensions: int
    distance: Distance
    filterable: Mapping[str, FieldType] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Payload:
    """What the index needs to know of a chunk besides its vector."""

    document_id: DocumentId
    born_epoch: Epoch
    died_epoch: Epoch | None
    touched_epoch: Epoch
    acl: Sequence[str]
    metadata: Mapping[str, Any]
    """Only the fields that the collection declares filterable."""


@dataclass(frozen=True, slots=True)
class Point:
    chunk_id: ChunkId
    vector: Vector
    """float32, `dimensions` long; unit length (or zero) when the distance is cosine."""
    payload: Payload


@dataclass(frozen=True, slots=True)
class Search:
    """The `limit` points nearest to `vector` that live at `epoch`, are readable by `principals`, match `filter`."""

    vector: Vector
    limit: int
    epoch: Epoch
    principals: Sequence[str]
    """The reader's labels; the wildcard is implied."""
    filter: Filter | None = None
    may_hold_newer: bool = True
    """Whether the index may hold points born after `epoch`; when it cannot, their exclusion costs nothing."""


@dataclass(frozen=True, slots=True)
class Match:
    chunk_id: ChunkId
    score: float


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as the index holds it, for comparing with the ledger. `payload` is raw: it may be garbled."""

    chunk_id: ChunkId
    payload: Mapping[str, Any]
    vector: Vector | None


@dataclass(frozen=True, slots=True)
class Page:
    """Points as columns, in ascending id order: for millions of them an object each would be most of the work."""

    ids: Sequence[int]
    payloads: Sequence[Mapping[str, Any] | None]
    vectors: Vectors | None
    """None if not asked for. A row for each point, of NaN where it has no vector of the collection's size."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Whose changes a collection holds, and how far: what tells a restored store from one that only lags."""

    ledger: str
    epoch: Epoch
    """Everything up to here was applied before the stamp was set."""
    chain: str
    """The hash of the commit of that epoch, in hexadecimal; empty for epoch 0."""
    term: int
    """The leader's who set it."""


class Index(Protocol):
    """One vector index engine. Safe to use from many tasks at once."""

    async def ping(self) -> None:
        """Return if the engine can serve; raise ``IndexUnavailable`` if not."""

    async def exists(self, collection: Collection) -> bool:
        """Whether the collection is there. What is not there is lost or was never made: its applied epoch must be 0
        before ``ensure`` makes it, or readers take it for full."""

    async def ensure(self, collection: Collection) -> bool:
        """Make sure the collection exists with its payload indexes. True if it was created by this call: then it
        is empty, and its applied epoch must start at 0 again."""

    async def drop(self, collection: Collection) -> None:
        """Remove the collection and all its points; nothing to do if there is none."""

    async def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        """Insert the points that are not there yet. Points that are there stay as they are."""

    async def mark_dead(self, collection: Collection, deaths: Mapping[ChunkId, Epoch]) -> None:
        """Set ``died_epoch`` on points that have none; ids that are not there are passed over."""

    async def refresh_payload(self, collection: Collection, payloads: Mapping[ChunkId, Payload]) -> None:
        """Replace access labels and metadata where the stored ``touched_epoch`` is older."""

    async def delete(self, collection: Collection, chunk_ids: Sequence[ChunkId]) -> None:
        """Remove points for good; ids that are not there are passed over."""

    async def search(self, collection: Collection, search: Search) -> list[Match]:
        """The matches, best first. Fewer than ``limit`` means that there are no more."""

    async def scroll(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """Up to `limit` points with an id above `after`, in ascending id order."""

    async def lookup(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """The points that are there among these ids, in any order."""

    async def count(self, collection: Collection) -> int:
        """How many points there are, dead ones included."""

    async def close(self) -> None:
        """Make everything durable and let go of the engine."""


@runtime_checkable
class Stamped(Protocol):
    """An index whose collections can be told whose they are. A stamp is kept among the points and travels with
    them into backups; searches, scrolls and counts pass over it."""

    async def stamp(self, collection: Collection, stamp: Stamp, *, replace: bool = False) -> None:
        """Set the stamp where there is none or one of an earlier epoch; with `replace`, whatever there is."""

    async def stamped(self, collection: Collection) -> Stamp | None:
        """The stamp; None if there is none, or what is there is not readable as one."""


@runtime_checkable
class Replicated(Protocol):
    """An index whose collections may have copies that no read is sure to ask."""

    async def copies(self, collection: Collection) -> str | None:
        """Raise ``IndexUnavailable`` unless what was deleted is gone from every copy; in words, how that is known.
        None if there are no copies."""


@runtime_checkable
class Compactable(Protocol):
    """An index that can rewrite a collection's files when it is told to."""

    async def compact(self, collection: Collection) -> None:
        """Rewrite the files without anything of points that were deleted before this call, logs included; return
        when the old files are gone. Reads and writes go on meanwhile. Takes as long as building the collection."""


@runtime_checkable
class Comparable(Protocol):
    """An index that can be held against the ledger, point by point."""

    async def lookup(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        """The points that are there among these ids, in any order."""

    async def page(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> Page:
        """Like ``scroll``, in columns."""

    async def misfits(self, collection: Collection) -> list[str]:
        """What of the collection's own parameters and payload indexes is not as ``ensure`` would make it, in words."""
