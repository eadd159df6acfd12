"""Validation."""

# Annotations are evaluated here: the route reads the type of its body from them.

from fastapi import APIRouter

from ragver import wire
from ragver.api.access import READER_BY_PRINCIPALS
from ragver.api.deps import CorpusPath, Use
from ragver.api.direct import DirectRoute

router = APIRouter(
    prefix="/corpora/{corpus}/validate",
    tags=["validation"],
    dependencies=[READER_BY_PRINCIPALS],
    route_class=DirectRoute,
)


@router.post("", summary="Validate", response_model=wire.ValidateResponse, responses={400: {}, 409: {}, 410: {}})
async def validate(corpus: CorpusPath, body: wire.ValidateRequest, services: Use) -> wire.ValidateResponse:
    """Check what generated text cites against the ledger as it is now.

    The verdict reflects every commit acknowledged before this call. Release the text within `valid_for_ms`,
    measured on your own monotonic clock from before you sent the request; later, validate again.

    With `record` the answer is kept, without its text, under `answer_id`: what it leans on can then be recalled. A
    verdict of pass or flag counts as delivered. Give a growing answer the same id each time.
    """
    if body.record:
        return await services.answers.validate(corpus, body)
    return await services.validation.validate(corpus, body)
