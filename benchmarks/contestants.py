"""A retrieval by ragver, and the bare work that it cannot do without, on the same corpus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import numpy as np
import qdrant_edge
from numpy.typing import NDArray

from ragver import wire
from ragver.bootstrap import Services
from ragver.collection import collection_of
from ragver.index.edge import EdgeIndex
from ragver.index.edge_shard import Shard
from ragver.liveness import CorpusView

K = 10
TEXTS = "SELECT id, text FROM chunk WHERE corpus_id = $1 AND id = ANY($2::bigint[])"


@dataclass(frozen=True, slots=True)
class Contestants:
    """Each takes the number of its turn, which says what is asked."""

    services: Services
    view: CorpusView
    queries: NDArray[np.float32]
    connection: Any
    shard: Shard

    @staticmethod
    @asynccontextmanager
    async def of(services: Services, corpus: str, queries: NDArray[np.float32]) -> AsyncIterator[Contestants]:
        """The contestants on a corpus, with a connection for the bare SELECT; what is asked for has been read once, so
        that no contestant pays for the first look at a page."""
        view = await services.views.get(corpus)
        assert isinstance(services.index, EdgeIndex)
        shard = services.index._shard(collection_of(view.info))
        connection = await asyncpg.connect(services.database.url)
        contestants = Contestants(services, view, queries, connection, shard)
        try:
            for number in range(len(queries)):
                await contestants.bare(number)
            yield contestants
        finally:
            await connection.close()

    def _query(self, number: int) -> list[float]:
        query: list[float] = self.queries[number % len(self.queries)].tolist()
        return query

    def _found(self, number: int) -> list[int]:
        nearest = qdrant_edge.Query.Nearest(self._query(number))
        # Its engine is another one when a graph has been built.
        hits = self.shard._engine.search(qdrant_edge.SearchRequest(nearest, K, with_payload=False))
        return [int(hit.id) for hit in hits]

    async def engine(self, number: int) -> None:
        """The engine's own search, without a filter."""
        self._found(number)

    async def bare(self, number: int) -> None:
        """That, and one SELECT of the texts."""
        await self.connection.fetch(TEXTS, self.view.info.corpus_id, self._found(number))

    async def strong(self, number: int) -> wire.RetrieveResponse:
        """A strong retrieval."""
        request = wire.RetrieveRequest(vector=self._query(number), k=K)
        return await self.services.retrieval.retrieve(self.view.info.name, request)

    async def strong_cold(self, number: int) -> wire.RetrieveResponse:
        """A strong retrieval by a process that has seen none of the chunks before."""
        self.view._forget([], everything=True)
        return await self.strong(number)
