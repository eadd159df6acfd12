"""Whether a whole collection is equal to the ledger, vectors included: what a generation has to be before it serves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from ragver.collection import collection_of
from ragver.errors import CorpusNotFound, IndexUnavailable
from ragver.index.port import Comparable, Index
from ragver.ledger import scanning
from ragver.ledger.database import Database
from ragver.ledger.generations import Standing
from ragver.reconciler import streams
from ragver.reconciler.looking import Looker
from ragver.reconciler.streams import Sides
from ragver.types import ChunkId, Epoch


def comparable(index: Index) -> Comparable:
    """The index as one that can be compared; ``IndexUnavailable`` for an adapter that cannot."""
    if not isinstance(index, Comparable):
        raise IndexUnavailable("this index adapter cannot be compared with the ledger: it lacks `Comparable`")
    return index


async def different(database: Database, index: Index, standing: Standing, epoch: Epoch) -> list[ChunkId]:
    """The chunks not touched after `epoch`, the generation's applied one, whose points are not as the ledger has them.

    Commits may go on meanwhile, and so may the indexer.
    """
    moment = await scanning.moment(database, standing.corpus, standing.generation.generation_id)
    if moment is None:
        raise CorpusNotFound("the corpus, or the index generation that was compared, is gone meanwhile")
    collection, compared = collection_of(standing), comparable(index)
    sides = Sides(database, compared, standing, collection, epoch, moment.horizon, vectors=True)
    looker = Looker(database, compared, index, standing, collection)
    found: list[ChunkId] = []
    async with aclosing(streams.parts(sides, ChunkId(0))) as parts:
        async for part in parts:
            suspects = list(map(ChunkId, part.suspects().tolist()))
            found += [one.chunk_id for one in await looker.confirmed(suspects)]
            await asyncio.sleep(0)  # others want to get on as well
    return found
