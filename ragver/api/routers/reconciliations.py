"""Reconciliations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from ragver import wire
from ragver.api.access import ADMIN
from ragver.api.deps import CorpusPath, Use
from ragver.types import RunState

router = APIRouter(prefix="/corpora/{corpus}/reconciliations", tags=["operations"])

WAIT_S_MAX = 60.0
"""Below what clients and balancers wait for an answer."""
RUNS_MAX = 1_000

WaitQuery = Annotated[
    float,
    Query(ge=0, le=WAIT_S_MAX, description="seconds to wait for the end; after that, 202 and the run so far"),
]


@router.post(
    "",
    status_code=201,
    summary="Compare ledger and index",
    dependencies=[ADMIN],
    response_model=wire.Reconciliation,
    responses={202: {"model": wire.Reconciliation, "description": "It goes on; ask for it by its id"}, 409: {}},
)
async def start(
    corpus: CorpusPath,
    body: wire.ReconciliationRequest,
    services: Use,
    response: Response,
    wait_s: WaitQuery = WAIT_S_MAX,
) -> wire.Reconciliation:
    """Hold the index against the ledger, point by point; with `repair`, put right what differs.

    One runs at a time in a corpus. One that was killed goes on where it was, if it is asked for the same again.
    """
    run = await services.reconciler.start(corpus, body, wait_s)
    if run.state is RunState.RUNNING:
        response.status_code = 202
    return run


@router.get("", summary="List reconciliations", dependencies=[ADMIN], response_model=wire.ReconciliationList)
async def recent(
    corpus: CorpusPath, services: Use, limit: Annotated[int, Query(ge=1, le=RUNS_MAX)] = 20
) -> wire.ReconciliationList:
    """The last runs, the newest first, without their findings."""
    return await services.reconciler.recent(corpus, limit)


@router.get("/{run_id}", summary="Look at a reconciliation", dependencies=[ADMIN], response_model=wire.Reconciliation)
async def get(
    corpus: CorpusPath, run_id: Annotated[str, Path(description="the run's id")], services: Use
) -> wire.Reconciliation:
    """A run as it stands, with its findings."""
    return await services.reconciler.get(corpus, run_id)
