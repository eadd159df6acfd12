"""Keeps requests within bounds before anything reads them."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragver.api.problems import problem_response
from ragver.errors import RequestTooLarge


class BodyLimit:
    """Refuses bodies above a size, by what they announce and by what they turn out to be."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > self._bytes_max:
            await self._refuse(scope, receive, send)
            return
        await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0
        started = False

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._bytes_max:
                raise RequestTooLarge(self._detail)
            return message

        async def watching_send(message: Message) -> None:
            # The framework answers an unreadable body in its own way; ours says what is wrong with it.
            nonlocal started
            if received <= self._bytes_max:
                started = True
                await send(message)

        with suppress(RequestTooLarge):
            await self._app(scope, counting_receive, watching_send)
        if received > self._bytes_max and not started:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problem_response(RequestTooLarge(self._detail))(scope, receive, send)

    @property
    def _detail(self) -> str:
        return (
            f"a request body may have {self._bytes_max} bytes at most; divide the commit, "
            "or raise RAGVER_REQUEST_BYTES_MAX"
        )
