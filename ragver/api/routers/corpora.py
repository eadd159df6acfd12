"""Corpora."""

from __future__ import annotations

from fastapi import APIRouter

from ragver import wire
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora", tags=["corpora"])


@router.post("", status_code=201, summary="Make a corpus", response_model=wire.Corpus, responses={409: {}})
async def create(body: wire.CorpusCreate, services: Use) -> wire.Corpus:
    """Make an empty corpus at epoch 0."""
    return await services.catalog.create(body)


@router.get("", summary="List corpora", response_model=wire.CorpusList)
async def list_all(services: Use) -> wire.CorpusList:
    """Every corpus, by name, with head, horizon and sizes."""
    return wire.CorpusList(corpora=await services.catalog.corpora())


@router.get("/{corpus}", summary="Look at a corpus", response_model=wire.Corpus)
async def get(corpus: CorpusPath, services: Use) -> wire.Corpus:
    """A corpus with head, horizon and sizes; counts, so poll `/commits` rather than this."""
    return await services.catalog.corpus(corpus)


@router.delete("/{corpus}", status_code=204, summary="Remove a corpus")
async def delete(corpus: CorpusPath, services: Use) -> None:
    """Remove a corpus with everything in it, for good."""
    await services.catalog.delete(corpus)
