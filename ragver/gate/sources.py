"""Whatever a model streams as one kind of source: asynchronous, in text, and closed when nobody reads on."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from ragver.citations.cited import Document
from ragver.gate.marking import Marking, Plain

CLOSE_S_MAX = 2.0
"""A source that has not closed after this time is left to itself."""

TextStream = AsyncIterable[Any] | Iterable[Any]
"""Text in pieces, or the chunks of a model's SDK."""

_OVER = object()


class Source(Protocol):
    async def next(self) -> str | None:
        """The next piece of text, which may be empty; None at the end. Raises what the stream raises."""

    def end(self) -> str:
        """What is left when there is no next piece."""

    async def close(self) -> None:
        """Stop the model, as far as the stream has a way to do so."""


def source_of(stream: object, documents: Iterable[Document] | None = None) -> Source:
    """A source for text, or for the chunks of a model's SDK, from an asynchronous or an ordinary iterator.

    With `documents`, what the model was given, citations that come beside the text are put into it. Raises
    ``TypeError`` for what cannot be iterated.
    """
    reading = Plain() if documents is None else Marking(documents)
    if isinstance(stream, AsyncIterable):
        return _Asynchronous(stream, reading)
    if isinstance(stream, Iterable):
        return _Threaded([stream] if isinstance(stream, str) else stream, reading)
    hint = ""
    if inspect.isawaitable(stream):
        hint = "; await it first"
    elif hasattr(stream, "__aenter__") or hasattr(stream, "__enter__"):
        hint = "; enter it with `with` first"
    raise TypeError(f"a model's stream is an iterator of text, and {type(stream).__name__} is none{hint}")


class _Asynchronous:
    def __init__(self, stream: AsyncIterable[Any], reading: Plain | Marking) -> None:
        self._stream = stream
        self._reading = reading
        self._iterator = aiter(stream)

    async def next(self) -> str | None:
        chunk = await anext(self._iterator, _OVER)
        return None if chunk is _OVER else self._reading.read(chunk)

    def end(self) -> str:
        return self._reading.end()

    async def close(self) -> None:
        for close in _closings(self._iterator, self._stream):
            closed = close()
            if inspect.isawaitable(closed):
                await closed


class _Threaded:
    """An iterator that blocks, read in a thread of its own."""

    def __init__(self, stream: Iterable[Any], reading: Plain | Marking) -> None:
        self._stream = stream
        self._reading = reading
        self._iterator = iter(stream)
        # Not the loop's common threads: a few slow models would keep everybody else from them.
        self._thread = ThreadPoolExecutor(1, "ragver-gate")
        self._under_way: asyncio.Future[Any] | None = None

    async def next(self) -> str | None:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        self._under_way = loop.run_in_executor(self._thread, context.run, self._read)
        chunk = await asyncio.shield(self._under_way)
        return None if chunk is _OVER else self._reading.read(chunk)

    def end(self) -> str:
        return self._reading.end()

    def _read(self) -> object:
        return next(self._iterator, _OVER)

    async def close(self) -> None:
        try:
            if self._under_way is not None:
                await asyncio.wait([self._under_way], timeout=CLOSE_S_MAX / 2)
            # A generator that is still busy cannot be closed; it ends with its thread.
            with suppress(ValueError):
                for close in _closings(self._iterator, self._stream):
                    close()
        finally:
            self._thread.shutdown(wait=False)


def _closings(iterator: object, stream: object) -> list[Callable[[], Any]]:
    """How to close the iterator, and the stream that it came from: an SDK's leaves the connection to the latter."""
    things = [iterator] if iterator is stream else [iterator, stream]
    closings = (getattr(thing, "aclose", None) or getattr(thing, "close", None) for thing in things)
    return [close for close in closings if close is not None]
