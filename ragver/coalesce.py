"""One read for everybody who is waiting for a fresh one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Coalesced(Generic[T]):
    """Calls share reads, and each call's answer comes from a read that began after the call.

    While a read is under way, everybody who asks waits for the one after it: the answer of the present one may
    be older than the question.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._next: asyncio.Future[T] | None = None
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self) -> T:
        """The result of a read that begins after this call; its error, if it fails."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._worker is None:
                self._worker = asyncio.create_task(self._work())
        # Shielded: one caller who gives up must not take the answer from the others.
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """Let a read that is under way come to its end, whoever has given up waiting for it."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while (waiting := self._next) is not None:
                self._next = None
                await self._answer(waiting)
        finally:
            # Nothing is awaited between finding no one waiting and clearing `_worker`: no wake-up can be lost.
            self._worker = None
            if self._next is not None:
                # Only a worker that is cancelled leaves somebody waiting.
                self._next.cancel()
                self._next = None

    async def _answer(self, waiting: asyncio.Future[T]) -> None:
        try:
            result = await self._read()
        except Exception as error:  # noqa: BLE001 - whatever it was, it is the callers' to handle
            waiting.set_exception(error)
            # Retrieved here once, in case every caller has given up meanwhile.
            waiting.exception()
        except BaseException:
            waiting.cancel()
            raise
        else:
            waiting.set_result(result)
