"""A clock that moves when a test moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime


class Hands:
    """Whoever sleeps wakes when its time has come; with `awake`, nobody sleeps, and time passes instead."""

    def __init__(self, *, awake: bool = False) -> None:
        self._now_s = 100.0
        self._awake = awake
        self._moved = asyncio.Condition()
        self.slept = asyncio.Event()
        """Set when somebody begins to wait."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s, UTC)

    def monotonic(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        until = self._now_s + seconds
        self.slept.set()
        if self._awake:
            self._now_s = until
            return
        async with self._moved:
            await self._moved.wait_for(lambda: self._now_s >= until)

    def turn(self, seconds: float) -> None:
        """Let time pass, and wake nobody."""
        self._now_s += seconds

    async def move(self, seconds: float) -> None:
        """Let time pass, and wake whose time has come."""
        self.turn(seconds)
        async with self._moved:
            self._moved.notify_all()
        await asyncio.sleep(0)
