"""A relay between a client and a server, which can lose an answer that the server has given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import httpx

PIECE_BYTES = 65_536


class Relay:
    """Hands bytes on in both directions. The client keeps its address, whatever becomes of the server."""

    def __init__(self) -> None:
        self.url = ""
        self.server: str | None = None
        """Where to hand requests on to; None: nowhere, and connections are closed at once."""
        self.instead: Callable[[], None] | None = None
        """What to do, once, in place of handing on the next answer; its connection is cut."""
        self.lost = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError):
                await self._connect(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.server is None:
            return
        url = httpx.URL(self.server)
        answers, requests = await asyncio.open_connection(url.host, url.port)
        asking = asyncio.create_task(_hand_on(reader, requests))
        try:
            while piece := await answers.read(PIECE_BYTES):
                if self.instead is not None:
                    lose, self.instead, self.server = self.instead, None, None
                    lose()
                    self.lost.set()
                    return
                writer.write(piece)
        finally:
            asking.cancel()
            requests.close()

    async def close(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)


@asynccontextmanager
async def relay_to(server: str) -> AsyncIterator[Relay]:
    """A relay to a server's URL for the length of the block."""
    relay = Relay()
    relay.server = server
    listening = await asyncio.start_server(relay._accept, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    relay.url = f"http://{host}:{port}"
    try:
        yield relay
    finally:
        listening.close()
        await relay.close()
