"""The change feed as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import InvalidRequest, NotFound, Unavailable

MEDIA_TYPE = "text/event-stream"
POLL_S = 0.25
HEARTBEAT_S = 15.0
PAGE = 500


def start(since: int, last_event_id: str | None) -> int:
    """The epoch after which to begin: a reconnecting client's last event wins. Raises ``InvalidRequest``."""
    if last_event_id is None:
        return since
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 16:
        raise InvalidRequest("`Last-Event-ID` is the epoch of the last event received")
    return int(last_event_id)


async def follow(
    services: Services,
    corpus: str,
    since: int,
    first: Sequence[wire.CommitEntry],
    disconnected: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[str, None]:
    """Each commit after `since` once, in order, for as long as the client listens.

    Ends when the corpus or the ledger goes away; the client reconnects and learns why.
    """
    entries = first
    silent_s = 0.0
    while not await disconnected():
        for entry in entries:
            since = entry.epoch
            yield _event(entry)
        if entries:
            silent_s = 0.0
        elif silent_s >= HEARTBEAT_S:
            silent_s = 0.0
            yield ": still here\n\n"
        try:
            entries = await _next(services, corpus, since)
        except (NotFound, Unavailable):
            return
        if not entries:
            await asyncio.sleep(POLL_S)
            silent_s += POLL_S


async def _next(services: Services, corpus: str, since: int) -> list[wire.CommitEntry]:
    _, head = await services.views.fresh(corpus)
    return [] if head.epoch <= since else await services.catalog.commits(corpus, since, PAGE)


def _event(entry: wire.CommitEntry) -> str:
    return f"id: {entry.epoch}\nevent: commit\ndata: {entry.model_dump_json()}\n\n"
