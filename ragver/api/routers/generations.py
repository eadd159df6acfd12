"""Index generations: rebuilding the index and changing the embedding while everything goes on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from ragver import wire
from ragver.api.access import ADMIN, READER
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora/{corpus}/generations", tags=["generations"])
GenerationPath = Annotated[str, Path(description="the generation's id", examples=["7"])]


@router.post(
    "",
    status_code=201,
    summary="Build a generation",
    dependencies=[ADMIN],
    response_model=wire.Generation,
    responses={
        200: {"model": wire.Generation, "description": "One for it is being built already"},
        409: {},
    },
)
async def begin(corpus: CorpusPath, body: wire.GenerationCreate, services: Use, response: Response) -> wire.Generation:
    """Begin to build a generation beside the serving one, from the ledger; reads and commits go on as before.

    There can be one beside. One that is being built for the same embedding goes on; any other is a conflict.
    """
    generation, begun = await services.generations.begin(corpus, body)
    if not begun:
        response.status_code = 200
    return generation


@router.get("", summary="List generations", dependencies=[READER], response_model=wire.GenerationList)
async def list_all(corpus: CorpusPath, services: Use) -> wire.GenerationList:
    """The generations that are not retired, the oldest first; counts, so poll it a few times a second at most."""
    return wire.GenerationList(generations=await services.generations.all_of(corpus))


@router.get("/{generation}", summary="Look at a generation", dependencies=[READER], response_model=wire.Generation)
async def get(corpus: CorpusPath, generation: GenerationPath, services: Use) -> wire.Generation:
    """How far a generation is, and why it does not get on, if it does not; counts."""
    return await services.generations.get(corpus, generation)


@router.post(
    "/{generation}/cut-over",
    summary="Let a generation serve",
    dependencies=[ADMIN],
    response_model=wire.CutOver,
    responses={409: {}},
)
async def cut_over(corpus: CorpusPath, generation: GenerationPath, services: Use) -> wire.CutOver:
    """One transaction of the ledger; the generation that served before stands by, and can be cut over to in turn.

    503 `generation_not_ready`, retryable, while the generation does not hold what the ledger says.
    """
    return await services.generations.cut_over(corpus, generation)


@router.delete(
    "/{generation}", status_code=204, summary="Retire a generation", dependencies=[ADMIN], responses={409: {}}
)
async def retire(corpus: CorpusPath, generation: GenerationPath, services: Use) -> None:
    """End a generation that is being built or stands by, for good: its points and vectors are removed."""
    await services.generations.retire(corpus, generation)
