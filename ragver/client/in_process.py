"""Ways to an application in this process, in place of the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

PIECES_WAITING_MAX = 16
"""Pieces of an answer that wait for their reader; beyond it the application does."""

Message = MutableMapping[str, Any]
Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class InProcess(httpx.AsyncBaseTransport):
    """Requests to an ASGI application in the same event loop.

    Unlike httpx's own, it hands an answer on while it is being made, so that feeds work, and keeps read timeouts.
    A reader who closes an answer or is cancelled ends the application's work on it.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer as soon as its head is there. Raises ``httpx.TransportError``."""
        exchange = _Exchange(self._application, request)
        try:
            status, headers = await exchange.head()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=exchange)


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer, which is also the stream of the answer's body."""

    def __init__(self, application: Application, request: httpx.Request) -> None:
        self._body = request.content
        self._asked = False
        self._failure: Exception | None = None
        self._silence_s_max: float | None = request.extensions.get("timeout", {}).get("read")
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(PIECES_WAITING_MAX)
        self._work = asyncio.create_task(self._run(application, _scope(request)), name="in-process request")

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        message = await self._next()
        return message["status"], list(message.get("headers", []))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._next()
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        self._work.cancel()
        await asyncio.wait([self._work])

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(self._silence_s_max):
                message = await self._messages.get()
        except TimeoutError as error:
            raise httpx.ReadTimeout("the application did not answer in time") from error
        if message is None:
            raise httpx.RemoteProtocolError("the application broke off its answer") from self._failure
        return message

    async def _run(self, application: Application, scope: dict[str, Any]) -> None:
        try:
            await application(scope, self._receive, self._messages.put)
        except Exception as error:  # noqa: BLE001  told to the reader, unless the answer was complete before
            self._failure = error
        await self._messages.put(None)

    async def _receive(self) -> Message:
        if self._asked:
            # The client leaves by cancelling the work, so nobody is ever told of it here.
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": self._body, "more_body": False}


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0),
        "root_path": "",
    }


class Across(httpx.BaseTransport):
    """A transport that lives in another thread's event loop, for a synchronous client in any thread."""

    def __init__(self, portal: BlockingPortal, transport: httpx.AsyncBaseTransport) -> None:
        self._portal = portal
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer as soon as its head is there. Raises ``httpx.TransportError``."""
        response = self._portal.call(self._transport.handle_async_request, request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=_StreamAcross(self._portal, response.stream)
        )


class _StreamAcross(httpx.SyncByteStream):
    def __init__(self, portal: BlockingPortal, stream: httpx.AsyncByteStream) -> None:
        self._portal = portal
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        pieces = aiter(self._stream)
        while (piece := self._portal.call(_next, pieces)) is not None:
            yield piece

    def close(self) -> None:
        self._portal.call(self._stream.aclose)


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)
