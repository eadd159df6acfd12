"""Waiting for a reconciliation, with a bar on a terminal and a line every few seconds elsewhere, on stderr."""

from __future__ import annotations

import asyncio
import time

from ragver import wire
from ragver.cli.progress import Look, watched
from ragver.client import AsyncClient
from ragver.client.errors import ApiError
from ragver.errors import ReconciliationRunning
from ragver.types import RunState

LOOK_S = 0.25
STILL_S_MAX = 60.0
"""How long a run may stand still before somebody looks whether anybody is still at it. Repairs do, too."""
PATIENCE_S = 0.5
"""How long the first answer may take: most runs are over by then."""


async def to_its_end(client: AsyncClient, corpus: str, request: wire.ReconciliationRequest) -> wire.Reconciliation:
    """Begin a run, or go on with one that was killed, and wait until it ends."""
    run = await client.reconcile(corpus, request, wait_s=PATIENCE_S)
    return await _watched(client, corpus, request, run) if run.state is RunState.RUNNING else run


async def _watched(
    client: AsyncClient, corpus: str, request: wire.ReconciliationRequest, run: wire.Reconciliation
) -> wire.Reconciliation:
    moved_s = time.monotonic()
    with watched(_look, _line) as show:
        while run.state is RunState.RUNNING:
            show(run)
            await asyncio.sleep(LOOK_S)
            before, run = run, await client.reconciliation(corpus, run.id)
            if run.points != before.points:
                moved_s = time.monotonic()
            elif time.monotonic() - moved_s > STILL_S_MAX:
                moved_s = time.monotonic()
                run = await _taken_up(client, corpus, request, run)
    return run


async def _taken_up(
    client: AsyncClient, corpus: str, request: wire.ReconciliationRequest, run: wire.Reconciliation
) -> wire.Reconciliation:
    """Ask for the same again: if the server that was at it was killed, another one goes on with it."""
    try:
        return await client.reconcile(corpus, request, wait_s=PATIENCE_S)
    except ApiError as error:
        if error.code != ReconciliationRunning.code:
            raise
        return run


def _look(run: wire.Reconciliation) -> Look:
    return Look(_stage(run), _done(run), run.points_expected or None, f"{run.drift:,} differ" if run.drift else "")


def _stage(run: wire.Reconciliation) -> str:
    return "comparing" if run.phase == "compare" else "repairing"


def _done(run: wire.Reconciliation) -> int | None:
    """Points gone over; the repair does not count them again."""
    return min(run.points, run.points_expected) if run.phase == "compare" else None


def _line(run: wire.Reconciliation) -> str:
    return f"{_stage(run)}: {run.points:,} of about {run.points_expected:,} points, {run.drift:,} differ"
