"""A reader of a gated stream in a process of its own, which stops itself (SIGSTOP) where it was told to.

It prints `shown` with the time of CLOCK_MONOTONIC, which all processes of a machine share, for each piece that it
shows, `stopped` before it stops, and at last the kind of event that ended the stream.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ragver.client import AsyncClient, Client
from ragver.gate import Released
from ragver.gate.across import Flow
from ragver.gate.flow import AsyncFlow

CLAIM = "It is so [1]. "
TOKEN_S = 0.002
NAP_S = 1.5
ARMED_AFTER_PIECES = 3

PLACES = ("before it asks", "after the verdict came", "before the lease is looked at", "after the hand-over")
"""Where a reader may stop. The last is beyond the gate: there the reader itself looks at the deadline."""


class Stopper:
    """Stops this process once, at its place, when it has shown some pieces."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.shown = 0
        self._done = False

    def at(self, place: str) -> None:
        if place == self.place and self.shown >= ARMED_AFTER_PIECES and not self._done:
            self._done = True
            print("stopped", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)

    def show(self, piece: Released) -> None:
        """The last hop to the user."""
        self.at(PLACES[3])
        if self.place == PLACES[3] and piece.late:
            return
        print("shown", time.clock_gettime(time.CLOCK_MONOTONIC), flush=True)
        self.shown += 1
        if self.place == "slow":
            time.sleep(NAP_S)


def main() -> None:
    url, corpus, snapshot, face, place, lease = sys.argv[1:]
    if lease == "ignored":
        Released.late = property(lambda piece: False)  # type: ignore[assignment,method-assign]
    stopper = Stopper(place)
    AsyncFlow._verdict = _stopping(AsyncFlow._verdict, stopper)  # type: ignore[method-assign]
    if face == "synchronous":
        _stop_after(Flow, stopper)
        read(url, corpus, snapshot, stopper)
    else:
        _stop_after_awaiting(AsyncFlow, stopper)
        asyncio.run(read_on(url, corpus, snapshot, stopper))


async def read_on(url: str, corpus: str, snapshot: str, stopper: Stopper) -> None:
    async def model() -> AsyncIterator[str]:
        while True:
            yield CLAIM
            await asyncio.sleep(TOKEN_S)

    async with AsyncClient(url) as client:
        async for event in client.gate(corpus, snapshot, model()).events():
            _note(event, stopper)


def read(url: str, corpus: str, snapshot: str, stopper: Stopper) -> None:
    def model() -> Iterator[str]:
        while True:
            yield CLAIM
            time.sleep(TOKEN_S)

    with Client(url) as client:
        for event in client.gate(corpus, snapshot, model()).events():
            _note(event, stopper)


def _note(event: Any, stopper: Stopper) -> None:
    if isinstance(event, Released):
        stopper.show(event)
    else:
        print(type(event).__name__, flush=True)


def _stopping(verdict: Callable[..., Any], stopper: Stopper) -> Callable[..., Any]:
    async def stopping(flow: AsyncFlow, request: Any) -> Any:
        stopper.at(PLACES[0])
        answer = await verdict(flow, request)
        stopper.at(PLACES[1])
        return answer

    return stopping


def _stop_after_awaiting(kind: type[AsyncFlow], stopper: Stopper) -> None:
    offer = kind.offer

    async def stopping(flow: AsyncFlow) -> Any:
        offered = await offer(flow)
        stopper.at(PLACES[2])
        return offered

    setattr(kind, "offer", stopping)  # noqa: B010 - a method, which may not be assigned to


def _stop_after(kind: type[Flow], stopper: Stopper) -> None:
    offer = kind.offer

    def stopping(flow: Flow) -> Any:
        offered = offer(flow)
        stopper.at(PLACES[2])
        return offered

    setattr(kind, "offer", stopping)  # noqa: B010 - a method, which may not be assigned to
