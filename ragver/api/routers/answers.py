"""Recorded answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from ragver import wire
from ragver.api.access import READER, READER_BY_PRINCIPALS, Who, read_by
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora/{corpus}/answers", tags=["answers"])

AnswerPath = Annotated[wire.AnswerId, Path()]


@router.post(
    "/revalidate",
    summary="May stored answers be served again?",
    dependencies=[READER_BY_PRINCIPALS],
    response_model=wire.RevalidateManyResponse,
)
async def revalidate_many(
    corpus: CorpusPath, body: wire.RevalidateManyRequest, services: Use, who: Who
) -> wire.RevalidateManyResponse:
    """A verdict of now for each of many recorded answers, and a reader with these principals.

    An answer that is not on record is rejected: `recorded` tells. Serve within `valid_for_ms`, measured on your own
    monotonic clock from before you sent the request.
    """
    return await services.answers.revalidate_many(corpus, body.ids, read_by(who, body).principals)


@router.get("/{answer_id}", summary="Look a recorded answer up", dependencies=[READER], response_model=wire.Answer)
async def get(corpus: CorpusPath, answer_id: AnswerPath, services: Use) -> wire.Answer:
    """What is kept of an answer that was validated with `record`: what it leans on, when it could go out; no text."""
    return await services.answers.get(corpus, answer_id)


@router.post(
    "/{answer_id}/revalidate",
    summary="May a stored answer be served again?",
    dependencies=[READER_BY_PRINCIPALS],
    response_model=wire.RevalidateResponse,
)
async def revalidate(
    corpus: CorpusPath, answer_id: AnswerPath, body: wire.RevalidateRequest, services: Use, who: Who
) -> wire.RevalidateResponse:
    """A verdict of now on a recorded answer, by the rules of the validation that recorded it, for a reader with
    these principals. It needs no text, so a quote stays as it was found."""
    return await services.answers.revalidate(corpus, answer_id, read_by(who, body).principals)
