"""What makes a generation fit to serve besides the indexer: vectors for its chunks, and a check of its collection.

Both run beside the indexing, since a model may be slow or away, and both may be cut off at any point: all they have
achieved is in the ledger. Trouble is said in the generation's `problem`, waited out, and never anybody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ragver.clock import Clock
from ragver.collection import collection_of
from ragver.embedding.registry import Embedders, normalised
from ragver.errors import LedgerUnavailable, RagverError, VectorInvalid
from ragver.index.port import Index
from ragver.ledger import commits, generations, lifecycle, vectors
from ragver.ledger.database import Database
from ragver.ledger.generations import Leadership, Standing
from ragver.ledger.vectors import Awaiting
from ragver.telemetry import logger
from ragver.types import ChunkId, Epoch

FILL_TEXTS_MAX = 256
"""Texts embedded at a time: what a kill can cost, and how often progress shows."""
FILLS_MAX = 2
"""Generations that are filled at the same time; those of other corpora wait for their turn."""
RETRY_S = 5.0
"""How long to wait after a failure before trying again."""

Compare = Callable[[Database, Index, Standing, Epoch], Awaitable[list[ChunkId]]]
"""The chunks not touched after an epoch whose points are not as the ledger has them."""


class Builder:
    """Fills and checks generations. Its methods return in any case; who calls them looks at the ledger again."""

    def __init__(self, database: Database, index: Index, embedders: Embedders, compare: Compare, clock: Clock) -> None:
        self._database = database
        self._index = index
        self._embedders = embedders
        self._compare = compare
        self._clock = clock
        self._turns = asyncio.Semaphore(FILLS_MAX)

    async def fill(self, standing: Standing, chunk_ids: Sequence[ChunkId]) -> None:
        """Give these chunks a vector in the generation: one that is known already, or else a new one."""
        try:
            async with self._turns:
                await self._fill(standing, chunk_ids)
            if standing.problem is not None:
                await self._note(standing, None)
        except Exception as error:  # noqa: BLE001 - a model's trouble must not end the indexing
            await self._failed(standing, "it cannot be given its vectors", error)

    async def check(self, standing: Standing, leadership: Leadership, epoch: Epoch) -> None:
        """Compare the collection, which holds everything up to `epoch`, with the ledger; write down if it is equal.

        What is not equal is removed, and everything applied anew. Nobody may write to the collection meanwhile.
        """
        try:
            found = await self._compare(self._database, self._index, standing, epoch)
            if not found and await lifecycle.verified(self._database, leadership, epoch):
                logger.info("generation_verified", corpus=standing.corpus_name, epoch=epoch)
                return
            await self._index.delete(collection_of(standing), found)
            if await generations.reset(self._database, leadership):
                wrong = f"{len(found)} points were not as the ledger has them" if found else "chunks were passed over"
                await self._note(standing, f"{wrong}; it is applied anew")
        except Exception as error:  # noqa: BLE001 - as above; an unchecked generation just does not serve
            await self._failed(standing, "it cannot be checked", error)

    async def _fill(self, standing: Standing, chunk_ids: Sequence[ChunkId]) -> None:
        key = standing.corpus, standing.generation.generation_id
        await vectors.copy(self._database, *key, chunk_ids)
        for start in range(0, len(chunk_ids), FILL_TEXTS_MAX):
            batch = await vectors.awaiting(self._database, *key, chunk_ids[start : start + FILL_TEXTS_MAX])
            if batch:
                by_hash = await self._vectors(standing, batch)
                await vectors.add(self._database, *key, {one.chunk_id: by_hash[one.content_hash] for one in batch})

    async def _vectors(self, standing: Standing, batch: Sequence[Awaiting]) -> dict[bytes, NDArray[np.float32]]:
        """A vector for each content, made only where the generation has none of it."""
        texts = {one.content_hash: one.text for one in batch}
        async with self._database.autocommit() as connection:
            known = await commits.known_vectors(
                connection, standing.corpus, standing.generation.generation_id, list(texts)
            )
        return known | await self._embedded(standing, {hash_: texts[hash_] for hash_ in texts if hash_ not in known})

    async def _embedded(self, standing: Standing, texts: dict[bytes, str]) -> dict[bytes, NDArray[np.float32]]:
        if not texts:
            return {}
        embedder = self._embedders.get(standing.generation.embedding)
        if embedder is None:
            raise VectorInvalid("clients bring its vectors, and no other generation has them: put the documents again")
        matrix = await embedder.embed_documents(list(texts.values()))
        return dict(zip(texts, normalised(matrix, standing.generation.distance), strict=True))

    async def _failed(self, standing: Standing, what: str, error: Exception) -> None:
        known = isinstance(error, RagverError)
        logger.warning("generation_waits", corpus=standing.corpus_name, error=str(error), exc_info=not known)
        await self._note(standing, f"{what}: {error}" if known else f"{what}: {type(error).__name__}, see the log")
        await self._clock.sleep(RETRY_S)

    async def _note(self, standing: Standing, problem: str | None) -> None:
        with suppress(LedgerUnavailable):  # then the indexer finds out by itself
            await lifecycle.note_problem(self._database, standing.corpus, standing.generation.generation_id, problem)
