"""Whether a collection holds what the ledger says: the same points, with the same payloads and vectors.

Commits may go on: what they touch after the epoch of the check is left out on both sides, and a difference only
counts if it is still one when the ledger is asked again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from ragver.collection import collection_of, payload_of
from ragver.index.payload import stored
from ragver.index.port import Collection, Index, StoredPoint
from ragver.ledger import chunks, corpora
from ragver.ledger.chunks import Change
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.types import ChunkId, Epoch

PAGE_POINTS = 1_000
TOLERANCE = 1e-5
"""By how much a vector may differ, relative and absolute: engines normalise once more."""

Pair = tuple[ChunkId, Change | None, StoredPoint | None]


async def different(database: Database, index: Index, standing: Standing, epoch: Epoch) -> list[ChunkId]:
    """The chunks whose point is missing, should not be there or is not as it should be, at `epoch`."""
    collection = collection_of(standing)
    suspects = {
        chunk_id: point
        async for chunk_id, change, point in _paired(database, index, standing)
        if not _agree(collection, change, point, epoch)
    }
    return await _confirmed(database, standing, suspects, epoch)


async def _confirmed(
    database: Database, standing: Standing, suspects: dict[ChunkId, StoredPoint | None], epoch: Epoch
) -> list[ChunkId]:
    """Those that are still different; a commit or the horizon may have explained the others."""
    collection, generation = collection_of(standing), standing.generation.generation_id
    ids, found = sorted(suspects), []
    for start in range(0, len(ids), PAGE_POINTS):
        page = ids[start : start + PAGE_POINTS]
        now = await chunks.changes_of(database, standing.corpus, generation, page)
        horizon = (await corpora.head(database, standing.corpus)).horizon
        for chunk_id in page:
            change = now.get(chunk_id)
            behind = change is not None and change.died_epoch is not None and change.died_epoch <= horizon
            if not behind and not _agree(collection, change, suspects[chunk_id], epoch):
                found.append(chunk_id)
    return found


def _agree(collection: Collection, change: Change | None, point: StoredPoint | None, epoch: Epoch) -> bool:
    if change is None:
        return point is None
    if change.touched_epoch > epoch:
        return True
    if change.vector is None:
        return point is None and not change.awaits_vector
    if point is None or point.vector is None:
        return False
    return stored(payload_of(collection, change)) == point.payload and np.allclose(
        change.vector, point.vector, rtol=TOLERANCE, atol=TOLERANCE
    )


async def _paired(database: Database, index: Index, standing: Standing) -> AsyncIterator[Pair]:
    """Every chunk with its point, in the order of ids; what the other side does not have is None there."""
    points = _points(index, collection_of(standing))
    point = await anext(points, None)
    async for change in _changes(database, standing):
        while point is not None and point.chunk_id < change.chunk_id:
            yield point.chunk_id, None, point
            point = await anext(points, None)
        if point is not None and point.chunk_id == change.chunk_id:
            yield change.chunk_id, change, point
            point = await anext(points, None)
        else:
            yield change.chunk_id, change, None
    while point is not None:
        yield point.chunk_id, None, point
        point = await anext(points, None)


async def _changes(database: Database, standing: Standing) -> AsyncIterator[Change]:
    after, generation = ChunkId(0), standing.generation.generation_id
    while page := await chunks.changes_from(database, standing.corpus, generation, after, PAGE_POINTS):
        for change in page:
            yield change
        after = page[-1].chunk_id


async def _points(index: Index, collection: Collection) -> AsyncIterator[StoredPoint]:
    after: ChunkId | None = None
    while page := await index.scroll(collection, after, PAGE_POINTS, with_vectors=True):
        for point in page:
            yield point
        after = page[-1].chunk_id
