"""Corpora."""

from __future__ import annotations

from fastapi import APIRouter

from ragver import wire
from ragver.api.access import ADMIN, ADMIN_BY_CORPORA, READER_BY_CORPORA, READER_BY_PRINCIPALS, Who
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora", tags=["corpora"])


@router.post(
    "",
    status_code=201,
    summary="Make a corpus",
    dependencies=[ADMIN_BY_CORPORA],
    response_model=wire.Corpus,
    responses={409: {}},
)
async def create(body: wire.CorpusCreate, services: Use, who: Who) -> wire.Corpus:
    """Make an empty corpus at epoch 0."""
    who.check_corpus(body.name)
    return await services.catalog.create(body)


@router.get("", summary="List corpora", dependencies=[READER_BY_CORPORA], response_model=wire.CorpusList)
async def list_all(services: Use, who: Who) -> wire.CorpusList:
    """Every corpus that the caller's key is for, by name, with head, horizon and sizes."""
    return wire.CorpusList(corpora=await services.catalog.corpora(who.may_touch))


@router.get("/{corpus}", summary="Look at a corpus", dependencies=[READER_BY_PRINCIPALS], response_model=wire.Corpus)
async def get(corpus: CorpusPath, services: Use) -> wire.Corpus:
    """A corpus with head, horizon and sizes; counts, so poll `/commits` rather than this."""
    return await services.catalog.corpus(corpus)


@router.delete("/{corpus}", status_code=204, summary="Remove a corpus", dependencies=[ADMIN])
async def delete(corpus: CorpusPath, services: Use) -> None:
    """Remove a corpus with everything in it, for good."""
    await services.catalog.delete(corpus)
