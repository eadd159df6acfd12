"""Handles on the read path: an index that a test can step into, an indexer that works when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ragver import wire
from ragver.answers import Answers
from ragver.bootstrap import Services
from ragver.catalog import Catalog
from ragver.clock import SystemClock
from ragver.collection import collection_of
from ragver.embedding.registry import Embedders, OpenAISettings
from ragver.errors import IndexUnavailable
from ragver.explaining import Explanations
from ragver.index.port import Collection, Index, Match, Payload, Point, Search, StoredPoint
from ragver.indexer import Indexer
from ragver.ledger import corpora
from ragver.liveness import Views
from ragver.recalls import Recalls
from ragver.retrieval import Limits, Retrieval
from ragver.telemetry import Metrics
from ragver.tokens import SnapshotTokens
from ragver.types import ChunkId, Epoch, Level
from ragver.validation import Validation
from ragver.writer import Writer
from tests.support.services import CORPUS, SECRET, caught_up

DIMENSIONS = 4
EXTERNAL = {"provider": "external", "dimensions": DIMENSIONS}
"""The embedding of a corpus whose clients bring short vectors."""
EAST = [1.0, 0.0, 0.0, 0.0]
"""The question that most tests ask."""

Step = Callable[[], Awaitable[object]]


def near(rank: float) -> list[float]:
    """A vector that lies farther from ``EAST`` the higher its rank."""
    return [1.0, rank / 100, 0.0, 0.0]


class Watched:
    """An index that lets the test step in before and after a call, and that can be away."""

    def __init__(self, inner: Index) -> None:
        self.inner = inner
        self.before_search: Step | None = None
        """Taken once, by the next search."""
        self.after_search: Step | None = None
        self.before_ensure: Step | None = None
        self.after_ensure: Step | None = None
        self.searches: list[Search] = []
        self.away = False

    def _here(self) -> Index:
        if self.away:
            raise IndexUnavailable("the test has switched the index off")
        return self.inner

    async def search(self, collection: Collection, search: Search) -> list[Match]:
        self.searches.append(search)
        before, self.before_search = self.before_search, None
        if before is not None:
            await before()
        found = await self._here().search(collection, search)
        after, self.after_search = self.after_search, None
        if after is not None:
            await after()
        return found

    async def ping(self) -> None:
        await self._here().ping()

    async def exists(self, collection: Collection) -> bool:
        return await self._here().exists(collection)

    async def ensure(self, collection: Collection) -> bool:
        before, self.before_ensure = self.before_ensure, None
        if before is not None:
            await before()
        created = await self._here().ensure(collection)
        after, self.after_ensure = self.after_ensure, None
        if after is not None:
            await after()
        return created

    async def drop(self, collection: Collection) -> None:
        await self._here().drop(collection)

    async def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        await self._here().upsert(collection, points)

    async def mark_dead(self, collection: Collection, deaths: Mapping[ChunkId, Epoch]) -> None:
        await self._here().mark_dead(collection, deaths)

    async def refresh_payload(self, collection: Collection, payloads: Mapping[ChunkId, Payload]) -> None:
        await self._here().refresh_payload(collection, payloads)

    async def delete(self, collection: Collection, chunk_ids: Sequence[ChunkId]) -> None:
        await self._here().delete(collection, chunk_ids)

    async def scroll(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return await self._here().scroll(collection, after, limit, with_vectors=with_vectors)

    async def lookup(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return await self._here().lookup(collection, chunk_ids, with_vectors=with_vectors)

    async def count(self, collection: Collection) -> int:
        return await self._here().count(collection)

    async def close(self) -> None:
        """The owner of the index within closes it."""


def watched(services: Services) -> tuple[Services, Watched]:
    """The same services reading through an index that the test can step into."""
    index = Watched(services.index)
    reading = services.retrieval
    retrieval = Retrieval(
        services.database,
        index,
        services.views,
        reading._embedders,
        reading._tokens,
        reading._clock,
        reading._limits,
        services.metrics,
    )
    return replace(services, index=index, retrieval=retrieval), index


async def second_process(services: Services, index: Index | None = None) -> Services:
    """What another process on the same ledger would have: nothing in common but the stores."""
    tokens = SnapshotTokens(SECRET, await corpora.ledger_id(services.database))
    views, clock, metrics = Views(services.database), SystemClock(), Metrics()
    validation = Validation(views, tokens, clock, metrics)
    limits = Limits(services.settings.tail_rows_max, services.settings.index_wait_ms_max / 1000)
    embedders = Embedders(OpenAISettings("http://127.0.0.1:9", None, 1.0))
    index = index or services.index
    return replace(
        services,
        index=index,
        views=views,
        catalog=Catalog(services.database, index, views, services.settings.embedding_provider),
        writer=Writer(services.database, views, embedders, clock, services.settings.document_bytes_max, metrics),
        retrieval=Retrieval(services.database, index, views, embedders, tokens, clock, limits, metrics),
        validation=validation,
        answers=Answers(services.database, views, validation, clock, metrics),
        recalls=Recalls(services.database, views),
        explanations=Explanations(services.database, views),
        metrics=metrics,
    )


def indexer_of(services: Services) -> Indexer:
    """An indexer that does nothing until it is run."""
    return Indexer(services.database, services.index, services.builder, SystemClock(), 0.005, Metrics())


async def index_all(services: Services, corpus: str = CORPUS) -> wire.Corpus:
    """Let an indexer work until nothing is left to do, and stop it."""
    running = asyncio.create_task(indexer_of(services).run())
    try:
        return await caught_up(services, corpus)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def collection(services: Services, corpus: str = CORPUS) -> Collection:
    """Where the points of a corpus are."""
    return collection_of((await services.views.get(corpus)).info)


async def retrieve(
    services: Services,
    *,
    corpus: str = CORPUS,
    level: Level | None = None,
    epoch: int | None = None,
    snapshot: str | None = None,
    max_lag_epochs: int | None = None,
    k: int = 50,
    **more: Any,
) -> wire.RetrieveResponse:
    """A retrieval, by default a strong one for everything near ``EAST``; a named epoch or snapshot is read exactly."""
    if level is None and (epoch is not None or snapshot is not None):
        level = Level.EXACT
    consistency = None
    if level is not None:
        consistency = wire.Consistency(level=level, epoch=epoch, snapshot=snapshot, max_lag_epochs=max_lag_epochs)
    question = {} if {"query", "vector"} & more.keys() else {"vector": EAST}
    request = wire.RetrieveRequest(k=k, consistency=consistency, **question, **more)
    return await services.retrieval.retrieve(corpus, request)


def texts(answer: wire.RetrieveResponse) -> list[str]:
    """The hits' texts, best first."""
    return [hit.text for hit in answer.hits]


async def validate(services: Services, snapshot: str, *, corpus: str = CORPUS, **more: Any) -> wire.ValidateResponse:
    """A validation, by default of every hit."""
    request = wire.ValidateRequest.model_validate({"snapshot": snapshot, "scope": "context", **more})
    return await services.validation.validate(corpus, request)


def statuses(answer: wire.ValidateResponse) -> list[str]:
    return [citation.status.value for citation in answer.citations]


async def sql(services: Services, statement: str) -> None:
    """What no service does, or not yet, written into the ledger by hand."""
    from sqlalchemy import text

    async with services.database.autocommit() as connection:
        await connection.fetch(text(statement))


def chunk(text: str, rank: float) -> dict[str, Any]:
    """A chunk with a vector of its own, for the `chunks` of a put."""
    return {"text": text, "vector": near(rank)}
