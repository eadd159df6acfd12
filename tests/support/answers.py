"""Answers on record, for tests of recalls and of all that reads them."""

from __future__ import annotations

from typing import Any

from ragver import wire
from ragver.bootstrap import Services
from tests.support.services import CORPUS
from tests.support.spine import retrieve


async def recorded(
    services: Services,
    answer: str = "So it is [1].",
    *,
    snapshot: str | None = None,
    principals: list[str] | None = None,
    **more: Any,
) -> wire.ValidateResponse:
    """A validation on record, of an answer to what was just retrieved unless it is told from which snapshot."""
    principals = principals or []
    if snapshot is None:
        snapshot = (await retrieve(services, principals=principals)).snapshot
    request = wire.ValidateRequest.model_validate(
        {"snapshot": snapshot, "answer": answer, "record": True, "principals": principals, **more}
    )
    return await services.answers.validate(CORPUS, request)


def cited(answer: wire.Answer) -> list[tuple[int | None, str, int | None]]:
    """Ref, status and epoch of delivery of each citation."""
    return [(one.ref, one.status.value, one.delivered_epoch) for one in answer.citations]
