"""Validation."""

from __future__ import annotations

from fastapi import APIRouter, Response

from ragver import wire
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora/{corpus}/validate", tags=["validation"])


@router.post("", summary="Validate", response_model=wire.ValidateResponse, responses={400: {}, 410: {}})
async def validate(corpus: CorpusPath, body: wire.ValidateRequest, services: Use) -> Response:
    """Check what generated text cites against the ledger as it is now.

    The verdict reflects every commit acknowledged before this call. Release the text within `valid_for_ms`,
    measured on your own monotonic clock from before you sent the request; later, validate again.
    """
    verdict = await services.validation.validate(corpus, body)
    # Already a checked model: serialised once, by pydantic, on the path in front of every answer.
    return Response(
        verdict.model_dump_json(exclude=None if verdict.answer is not None else {"answer"}),
        media_type="application/json",
    )
