"""Reconciliation once a night, for as long as the process lives."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, time, timedelta

from ragver import wire
from ragver.cli import logs
from ragver.cli.connection import Connection, Place, connect
from ragver.cli.reconciling import to_its_end
from ragver.errors import InvalidRequest, RagverError
from ragver.telemetry import logger
from ragver.types import RunState

LOOK_AGAIN_S = 3_600.0
"""At the latest so long after the last look: corpora come and go, and clocks are set."""
RETRY_S = 600.0
"""After a run that could not be done, or while a store or the server is away."""


def reconcile_nightly(place: Place, at: str, corpus: str | None, request: wire.ReconciliationRequest) -> None:
    """Reconcile once a day at `at`, until the process is stopped. Raises ``InvalidRequest`` if that is no time."""
    when = time_of_day(at)
    logs.configure("INFO")
    asyncio.run(_for_ever(place, when, corpus, request))


def time_of_day(text: str) -> time:
    """A time as ``HH:MM``. Raises ``InvalidRequest``."""
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise InvalidRequest(f"--nightly takes a time of the day in UTC, like 03:00, not {text!r}")
    return time.fromisoformat(text)


def wait_s(now: datetime, at: time, last_success: datetime | None) -> float:
    """How long until a run is due: 0 if there was none since the last time that it was the hour.

    All by the ledger's clock, in UTC.
    """
    today = datetime.combine(now.date(), at, now.tzinfo)
    last_due = today if today <= now else today - timedelta(days=1)
    if last_success is None or last_success < last_due:
        return 0.0
    return (last_due + timedelta(days=1) - now).total_seconds()


async def _for_ever(place: Place, at: time, corpus: str | None, request: wire.ReconciliationRequest) -> None:
    tried: dict[str, datetime] = {}
    while True:
        try:
            async with connect(place) as connection:
                pause_s = await night(connection, at, corpus, request, tried)
        except RagverError as error:
            logger.warning("nightly_waits", code=error.code, detail=error.detail)
            pause_s = RETRY_S
        await asyncio.sleep(min(pause_s, LOOK_AGAIN_S))


async def night(
    connection: Connection,
    at: time,
    corpus: str | None,
    request: wire.ReconciliationRequest,
    tried: dict[str, datetime],
) -> float:
    """Reconcile every corpus that is due; in how many seconds the next one will be.

    `tried` keeps when a run last ended in a no: that stands until the next night.
    """
    names = [corpus] if corpus is not None else [found.name for found in await connection.client.corpora()]
    pauses_s = [await _one(connection, name, at, request, tried) for name in names]
    return min(pauses_s, default=LOOK_AGAIN_S)


async def _one(
    connection: Connection,
    name: str,
    at: time,
    request: wire.ReconciliationRequest,
    tried: dict[str, datetime],
) -> float:
    before = await connection.client.reconciliations(name, limit=1)
    pause_s = wait_s(before.now, at, _latest(before.last_success, tried.get(name)))
    if pause_s > 0:
        return pause_s
    try:
        run = await to_its_end(connection.client, name, request)
    except RagverError as error:
        logger.warning("nightly_waits", corpus=name, code=error.code, detail=error.detail)
        return RETRY_S
    left = {str(kind): count - run.repaired[kind] for kind, count in run.counts.items() if count > run.repaired[kind]}
    logger.info("nightly_done", corpus=name, run=run.id, state=run.state, detail=run.detail, drift=left)
    if run.state is RunState.FAILED:
        return RETRY_S
    if run.state is RunState.STOPPED:
        tried[name] = before.now
    return wait_s(before.now, at, before.now)


def _latest(*times: datetime | None) -> datetime | None:
    return max((one for one in times if one is not None), default=None)
