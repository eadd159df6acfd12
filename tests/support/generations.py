"""Index generations in tests: begun, waited for, cut over to."""

from __future__ import annotations

import asyncio
from typing import Any

from ragver import wire
from ragver.bootstrap import Services
from ragver.types import GenerationState
from tests.support.services import CORPUS, POLL_S

BUILD_S_MAX = 60.0
SMALLER: dict[str, Any] = {"provider": "hashing", "dimensions": 128}
"""Another embedding than the default one, which has more dimensions."""


async def begin(services: Services, embedding: dict[str, Any] | None = SMALLER, corpus: str = CORPUS) -> str:
    """The id of a generation that is being built; without an embedding, with that of the serving one."""
    wanted = wire.GenerationCreate.model_validate({"embedding": embedding})
    generation, _ = await services.generations.begin(corpus, wanted)
    return generation.id


async def built(services: Services, generation: str, corpus: str = CORPUS) -> wire.Generation:
    """Wait until the generation is equal to the ledger and holds everything."""
    async with asyncio.timeout(BUILD_S_MAX):
        while True:
            told = await services.generations.get(corpus, generation)
            checked = told.state is not GenerationState.BUILDING or told.verified_epoch is not None
            if checked and told.applied_epoch == told.head:
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
