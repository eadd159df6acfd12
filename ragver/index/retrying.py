"""Attempts at a request that may be repeated: a few, with growing random pauses between them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

ATTEMPTS_MAX = 3
PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 2.0
RETRY_AFTER_S_MAX = 10.0
"""A server that asks for a longer pause than this is unavailable."""

T = TypeVar("T")


class Failure(Exception):
    """An attempt that failed: in which way, whether another one can help, and when the server wants it."""

    def __init__(self, trouble: str, *, passing: bool, wait_s: float | None = None) -> None:
        super().__init__(trouble)
        self.trouble = trouble
        self.passing = passing
        self.wait_s = wait_s


async def retried(attempt: Callable[[], Awaitable[T]], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> T:
    """What the first successful attempt gives. Raises the last ``Failure`` when there is none."""
    for number in range(1, ATTEMPTS_MAX):
        try:
            return await attempt()
        except Failure as failure:
            pause_s = _pause_s(number, failure)
            if not failure.passing or pause_s > RETRY_AFTER_S_MAX:
                raise
        await sleep(pause_s)
    return await attempt()


def _pause_s(number: int, failure: Failure) -> float:
    if failure.wait_s is not None:
        return failure.wait_s
    # Anywhere up to the bound, so that those who failed together do not come back together.
    return random.uniform(0.0, min(PAUSE_S_MAX, PAUSE_S_FIRST * 2.0**number))
