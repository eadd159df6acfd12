"""Liveness, readiness, metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from ragver.api.access import OPEN, READER
from ragver.api.deps import Use
from ragver.errors import LedgerUnavailable, RagverError
from ragver.ledger import corpora
from ragver.wire import Readiness

router = APIRouter(tags=["operations"])


class Alive(BaseModel):
    status: str


@router.get("/healthz", summary="Is the process alive?", dependencies=[OPEN], response_model=Alive)
async def alive() -> Alive:
    """Answers as long as the process does; says nothing of the stores."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    summary="Can it serve?",
    dependencies=[OPEN],
    response_model=Readiness,
    responses={503: {"model": Readiness}},
)
async def ready(services: Use, response: Response) -> Readiness:
    """Asks both stores; 503 while one is away, and which."""
    ledger = await _state(corpora.ledger_id(services.database))
    index = await _state(services.index.ping())
    good = ledger == index == "ok"
    if not good:
        response.status_code = 503
    return Readiness(status="ok" if good else "unavailable", ledger=ledger, index=index)


async def _state(asked: Any) -> str:
    try:
        await asked
    except RagverError as error:
        return error.code
    return "ok"


@router.get("/metrics", summary="Prometheus metrics", dependencies=[READER], response_class=Response)
async def metrics(services: Use) -> Response:
    """In Prometheus's text format. The labels name corpora, so this takes a key for all of them."""
    # Not the process's own figures: without the ledger they stay as they were, and /readyz says why.
    with suppress(LedgerUnavailable):
        await services.reconciler.measure()
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
