"""Index generations in tests: begun, waited for, cut over to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.embedding.hashing import HashingEmbedder
from ragver.errors import EmbeddingUnavailable
from ragver.ledger import corpora, generations
from ragver.reconciler.comparing import different
from ragver.types import GenerationState
from tests.support.services import CORPUS, POLL_S
from tests.support.spine import indexer_of

BUILD_S_MAX = 60.0
LARGE, SMALL = 256, 128
LARGER: dict[str, Any] = {"provider": "hashing", "dimensions": LARGE}
SMALLER: dict[str, Any] = {"provider": "hashing", "dimensions": SMALL}
"""What a corpus of the default embedding, or of the larger one, is migrated to."""


async def begin(services: Services, embedding: dict[str, Any] | None = SMALLER, corpus: str = CORPUS) -> str:
    """The id of a generation that is being built; without an embedding, with that of the serving one."""
    wanted = wire.GenerationCreate.model_validate({"embedding": embedding})
    generation, _ = await services.generations.begin(corpus, wanted)
    return generation.id


async def built(services: Services, generation: str, corpus: str = CORPUS, *, at_head: bool = True) -> wire.Generation:
    """Wait until the generation has been found equal to the ledger, and holds everything but what comes just now."""

    def done(told: wire.Generation) -> bool:
        checked = told.state is not GenerationState.BUILDING or told.verified_epoch is not None
        return checked and (told.applied_epoch == told.head or not at_head)

    return await until(services, generation, done, corpus)


async def until(
    services: Services, generation: str, wanted: Callable[[wire.Generation], bool], corpus: str = CORPUS
) -> wire.Generation:
    """Wait until the generation is as wanted."""
    async with asyncio.timeout(BUILD_S_MAX):
        while True:
            told = await services.generations.get(corpus, generation)
            if wanted(told):
                return told
            await asyncio.sleep(POLL_S)


async def cut_over(services: Services, generation: str, corpus: str = CORPUS) -> wire.CutOver:
    return await services.generations.cut_over(corpus, generation)


async def migrated(services: Services, embedding: dict[str, Any] | None = SMALLER, corpus: str = CORPUS) -> str:
    """Build a generation and let it serve; its id."""
    generation = await begin(services, embedding, corpus)
    await built(services, generation, corpus)
    await cut_over(services, generation, corpus)
    return generation


@asynccontextmanager
async def indexing(services: Services) -> AsyncIterator[None]:
    """An indexer, which builds generations too, for the length of the block."""
    running = asyncio.create_task(indexer_of(services).run())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def built_beside(services: Services, embedding: dict[str, Any] | None = SMALLER) -> str:
    """A generation that could serve now; nothing is indexed after it."""
    async with indexing(services):
        generation = await begin(services, embedding)
        await built(services, generation)
    return generation


async def check_generations(services: Services, corpus: str = CORPUS) -> list[GenerationState]:
    """Check that every collection holds exactly what the ledger says; the states of their generations."""
    info = await corpora.get(services.database, corpus)
    standings = await generations.of_corpus(services.database, info.corpus_id)
    for standing in standings:
        assert standing.head == standing.applied, standing
        assert [] == await different(services.database, services.index, standing, standing.head), standing.state
    return [standing.state for standing in standings]


class Model:
    """What stands between the hashing embedders and whoever asks them: it can be away, and made to wait."""

    def __init__(self) -> None:
        self.away: set[int] = set()
        """The dimensions of the embedders that do not answer for documents."""
        self.queries_too = False
        """Nor for queries."""
        self.gated: set[int] = set()
        """Those that wait for ``may_answer``, and say that they do with ``asked``."""
        self.texts: list[str] = []
        """What the embedders were asked for, in order."""
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    def check_query(self, dimensions: int) -> None:
        if self.queries_too and dimensions in self.away:
            raise EmbeddingUnavailable("the test has switched the model off")

    async def pass_on(self, dimensions: int, texts: Sequence[str]) -> None:
        if dimensions in self.gated:
            self.asked.set()
            await self.may_answer.wait()
        if dimensions in self.away:
            raise EmbeddingUnavailable("the test has switched the model off")
        self.texts += texts


def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Stand between the hashing embedders and everybody who asks them."""
    between, original = Model(), HashingEmbedder.embed_documents

    async def embed_documents(self: HashingEmbedder, texts: Sequence[str]) -> Any:
        await between.pass_on(self.dimensions, texts)
        return await original(self, texts)

    async def embed_query(self: HashingEmbedder, text: str) -> Any:
        between.check_query(self.dimensions)
        return (await original(self, [text]))[0]

    monkeypatch.setattr(HashingEmbedder, "embed_documents", embed_documents)
    monkeypatch.setattr(HashingEmbedder, "embed_query", embed_query)
    return between
