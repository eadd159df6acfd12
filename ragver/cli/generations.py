"""Waiting for an index generation, with a bar on a terminal and a line every few seconds elsewhere, on stderr."""

from __future__ import annotations

import asyncio
import time

from ragver import wire
from ragver.cli.progress import Look, watched
from ragver.client import AsyncClient
from ragver.client.errors import ApiError
from ragver.errors import GenerationNotReady
from ragver.types import GenerationState

LOOK_S = 0.5
PROBLEM_S_MAX = 120.0
"""How long the same trouble may last before nobody waits for its end any more."""


async def cut_over(client: AsyncClient, corpus: str, generation_id: str) -> wire.CutOver:
    """Wait until the generation can serve, and let it. Raises ``GenerationNotReady`` if its trouble does not end."""
    while True:
        await built(client, corpus, generation_id)
        try:
            return await client.cut_over(corpus, generation_id)
        except ApiError as error:
            if error.code != GenerationNotReady.code:
                raise
            await asyncio.sleep(LOOK_S)


async def built(client: AsyncClient, corpus: str, generation_id: str) -> wire.Generation:
    """Wait until the generation has been found equal to the ledger, or is no longer being built."""
    with watched(_look, _line) as show:
        trouble: str | None = None
        since_s = time.monotonic()
        while True:
            generation = await client.generation(corpus, generation_id)
            if _is_built(generation):
                return generation
            show(generation)
            if generation.problem != trouble:
                trouble, since_s = generation.problem, time.monotonic()
            if trouble is not None and time.monotonic() - since_s > PROBLEM_S_MAX:
                raise GenerationNotReady(
                    f"generation {generation_id} waits: {trouble}; it goes on by itself when that has ended, and this "
                    "command too when it is run again"
                )
            await asyncio.sleep(LOOK_S)


def _is_built(generation: wire.Generation) -> bool:
    """Whether only what commits have added since may be missing."""
    return generation.state is not GenerationState.BUILDING or generation.verified_epoch is not None


def _look(generation: wire.Generation) -> Look:
    return Look(_stage(generation), generation.embedded, generation.chunks, generation.problem or "")


def _stage(generation: wire.Generation) -> str:
    if generation.embedded < generation.chunks:
        return "embedding"
    return "indexing" if generation.applied_epoch < generation.head else "checking"


def _line(generation: wire.Generation) -> str:
    trouble = "" if generation.problem is None else f"; it waits: {generation.problem}"
    return (
        f"{_stage(generation)}: {generation.embedded:,} of {generation.chunks:,} chunks embedded, "
        f"epoch {generation.applied_epoch:,} of {generation.head:,} applied{trouble}"
    )
