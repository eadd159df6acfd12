"""Retrieval."""

from __future__ import annotations

from fastapi import APIRouter

from ragver import wire
from ragver.api.access import READER_BY_PRINCIPALS, Who, read_by
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora/{corpus}/retrieve", tags=["retrieval"], dependencies=[READER_BY_PRINCIPALS])


@router.post("", summary="Retrieve", response_model=wire.RetrieveResponse, responses={400: {}, 410: {}})
async def retrieve(corpus: CorpusPath, body: wire.RetrieveRequest, services: Use, who: Who) -> wire.RetrieveResponse:
    """Passages alive at one epoch that today's access lists let the principals read.

    `strong` (the default) sees every commit acknowledged before, without waiting for the indexer. `bounded`
    reads at most `max_lag_epochs` behind the head, `at_least` no earlier than an epoch, `exact` that very
    epoch. Keep `snapshot` for validating what is generated from the hits.
    """
    return await services.retrieval.retrieve(corpus, read_by(who, body))
