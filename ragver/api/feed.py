"""Feeds that stay open and follow, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import StreamingResponse

from ragver.api.access import hung_up
from ragver.errors import NotFound, Unavailable

MEDIA_TYPE = "text/event-stream"
POLL_S = 0.25
HEARTBEAT_S = 15.0

RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}}
"""What a route that can also be followed documents besides."""
Accept = Annotated[str, Header(include_in_schema=False)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID")]


@dataclass(frozen=True, slots=True)
class Event:
    """Its id is a place in the feed: that behind it."""

    id: str
    name: str
    data: str


Read = Callable[[str], Awaitable[tuple[Sequence[Event], str]]]
"""What comes after a place, and the place behind that."""


def wanted(accept: str) -> bool:
    """Whether the client wants to follow."""
    return MEDIA_TYPE in accept


async def response(request: Request, read: Read, place: str) -> StreamingResponse:
    """Everything after a place, for as long as the client listens; what ``read`` raises at first is the answer."""
    first, behind = await read(place)
    return StreamingResponse(
        follow(read, first, behind, lambda: hung_up(request)),
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def follow(
    read: Read, first: Sequence[Event], place: str, disconnected: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[str, None]:
    """Each event once, in order, for as long as the client listens.

    Ends when the corpus or the ledger goes away; the client reconnects and learns why.
    """
    events = first
    silent_s = 0.0
    while not await disconnected():
        for event in events:
            yield f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n"
        if events:
            silent_s = 0.0
        elif silent_s >= HEARTBEAT_S:
            silent_s = 0.0
            # The id moves on without an event: whoever reconnects need not have old epochs looked through again.
            yield f": still here\nid: {place}\n\n"
        try:
            events, place = await read(place)
        except (NotFound, Unavailable):
            return
        if not events:
            await asyncio.sleep(POLL_S)
            silent_s += POLL_S
