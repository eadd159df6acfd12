"""Reads a feed of the application in this process: httpx's transport for applications cannot, for it has no end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.types import Message

from ragver.api.app import create_app
from ragver.bootstrap import Services
from tests.support.api import served

EVENT_S_MAX = 20


@dataclass(frozen=True, slots=True)
class Received:
    """An event as it came; `data` is empty for one that only moves the id on."""

    id: str
    name: str
    data: str


class Stream:
    """A response under way."""

    def __init__(self, messages: asyncio.Queue[Message]) -> None:
        self._messages = messages
        self._text = ""

    async def next(self) -> Received:
        """The next event; fails if none comes in time."""
        async with asyncio.timeout(EVENT_S_MAX):
            while "\n\n" not in self._text:
                message = await self._messages.get()
                if message["type"] == "http.response.start":
                    assert 200 == message["status"]
                else:
                    assert message.get("more_body") or message["body"], "the feed has ended"
                    self._text += message["body"].decode()
        event, _, self._text = self._text.partition("\n\n")
        fields = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        return Received(fields["id"], fields.get("event", ""), fields.get("data", ""))


@asynccontextmanager
async def following(services: Services, path: str, **parameters: object) -> AsyncIterator[Stream]:
    """Follow a feed until the end of the block; `last_event_id` goes as the header."""
    app = create_app(lambda: served(services), services.settings.request_bytes_max)
    app.state.services = services
    headers = [(b"accept", b"text/event-stream")]
    if (last := parameters.pop("last_event_id", None)) is not None:
        headers.append((b"last-event-id", str(last).encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": urlencode(parameters).encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("ragver.test", 80),
    }
    messages: asyncio.Queue[Message] = asyncio.Queue()
    gone = asyncio.Event()
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.put_nowait(message)

    running = asyncio.create_task(app(scope, receive, send))
    try:
        yield Stream(messages)
    finally:
        gone.set()
        await running
