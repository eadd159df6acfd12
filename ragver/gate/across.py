"""A gate's flow for a reader without an event loop: it lives in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ragver import wire
from ragver.citations.cited import Document
from ragver.clock import Clock
from ragver.gate.events import End
from ragver.gate.flow import AsyncFlow, Offer
from ragver.gate.holding import Terms

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

THREAD = "ragver gate"

Validate = Callable[[wire.ValidateRequest], wire.ValidateResponse]
"""Asks the validator. Raises ``RagverError`` if there is no verdict."""


class Flow:
    """An ``AsyncFlow`` whose methods block."""

    def __init__(
        self,
        validate: Validate,
        terms: Terms,
        stream: object,
        documents: Iterable[Document] | None,
        clock: Clock | None,
    ) -> None:
        if isinstance(stream, AsyncIterable):
            raise TypeError("an asynchronous stream needs the asynchronous client")
        self._validate = validate
        self._flow = AsyncFlow(self._in_a_thread, terms, stream, documents, clock)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._closed = False

    async def _in_a_thread(self, request: wire.ValidateRequest) -> wire.ValidateResponse:
        from anyio.to_thread import run_sync

        # Abandoned where the gate gives up: a thread that waits for a server cannot be stopped.
        return await run_sync(self._validate, request, abandon_on_cancel=True)

    @property
    def _loop(self) -> BlockingPortal:
        # Comes with httpx.
        from anyio.from_thread import start_blocking_portal

        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal(name=THREAD))
        return self._portal

    def start(self) -> None:
        self._loop.call(self._flow.start)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._stack:
            self._loop.call(self._flow.close)

    def offer(self) -> Offer:
        return self._loop.call(self._flow.offer)

    def accept(self, offer: Offer) -> None:
        # Not waited for: the text goes out now.
        self._loop.start_task_soon(self._flow.accept, offer)

    def ask_again(self) -> None:
        self._loop.call(self._flow.ask_again)

    def end(self, offer: Offer) -> End:
        return self._loop.call(self._flow.end, offer)
