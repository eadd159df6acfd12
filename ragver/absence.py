"""Looks for points that should be gone, by every way there is.

An engine can lose a deletion in one of its structures and not in another: a point that no lookup finds by its id may
still be in a graph, a scroll, a replica. So nobody is believed who says that a point was deleted; it is looked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragver.index.payload import ACL, BORN_EPOCH
from ragver.index.port import Collection, Index, Replicated, Search, StoredPoint, Vector
from ragver.types import ChunkId, Epoch

LOOKUP_POINTS_MAX = 1_000
SCROLL_POINTS = 1_000
PROBES_MAX = 256
"""Points of one collection that are searched for by their own vectors."""
PROBE_HITS = 16
"""How many of the nearest points are looked at; the point itself would be the first."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Where a point was, when it lived, and who could see it."""

    vector: Vector
    born_epoch: Epoch
    principals: Sequence[str]


@dataclass(frozen=True, slots=True)
class Look:
    found: frozenset[ChunkId]
    ways: Sequence[str]
    """How it was looked."""


async def probes_of(index: Index, collection: Collection, chunk_ids: Sequence[ChunkId]) -> list[Probe]:
    """What to search for once these points are gone; of ``PROBES_MAX`` of those that are still there."""
    found: list[Probe] = []
    for batch in _batches(chunk_ids):
        if len(found) < PROBES_MAX:
            points = await index.lookup(collection, batch, with_vectors=True)
            found += [probe for point in points if (probe := _probe(point)) is not None]
    return found[:PROBES_MAX]


def _probe(point: StoredPoint) -> Probe | None:
    """None where the point is too damaged to be searched by."""
    born, labels = point.payload.get(BORN_EPOCH), point.payload.get(ACL)
    if point.vector is None or not isinstance(born, int) or not isinstance(labels, list):
        return None
    return Probe(point.vector, Epoch(born), [str(label) for label in labels])


async def look(
    index: Index, collection: Collection, chunk_ids: Sequence[ChunkId], probes: Sequence[Probe], epoch: Epoch
) -> Look:
    """Which of these points anything still finds: by id, by a scroll, and by searches for the probes, each at the
    epoch of its birth and at `epoch`. Raises ``IndexUnavailable`` where a copy could have them that nobody asked."""
    wanted = frozenset(chunk_ids)
    copies = await index.copies(collection) if isinstance(index, Replicated) else None
    found = {point.chunk_id for batch in _batches(chunk_ids) for point in await index.lookup(collection, batch)}
    found |= wanted & await _scrolled(index, collection, sorted(wanted))
    for probe in probes:
        for at in {probe.born_epoch, epoch}:
            found |= wanted & await _near(index, collection, probe, at)
    ways = [f"{len(wanted)} points looked up by id", "the collection scrolled where they were"]
    if probes:
        ways.append(f"searched with the vectors of {len(probes)} of them, at the epochs of their births and now")
    if copies is not None:
        ways.append(copies)
    return Look(frozenset(found), ways)


async def _scrolled(index: Index, collection: Collection, wanted: Sequence[ChunkId]) -> set[ChunkId]:
    """The points that a scroll shows from one wanted id to the next, without what lies far between."""
    seen: set[ChunkId] = set()
    place = 0
    while place < len(wanted):
        page = await index.scroll(collection, ChunkId(wanted[place] - 1), SCROLL_POINTS)
        seen.update(point.chunk_id for point in page)
        if len(page) < SCROLL_POINTS:
            break
        place = bisect_right(wanted, page[-1].chunk_id)
    return seen


async def _near(index: Index, collection: Collection, probe: Probe, epoch: Epoch) -> set[ChunkId]:
    question = Search(probe.vector, PROBE_HITS, epoch, probe.principals)
    return {match.chunk_id for match in await index.search(collection, question)}


def _batches(chunk_ids: Sequence[ChunkId]) -> Iterator[Sequence[ChunkId]]:
    for start in range(0, len(chunk_ids), LOOKUP_POINTS_MAX):
        yield chunk_ids[start : start + LOOKUP_POINTS_MAX]
