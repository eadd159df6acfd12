"""Time as a dependency, so that leases and deadlines can be tested without waiting."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the services know of time. Retention does not use it: that goes by the database's clock."""

    def now(self) -> datetime:
        """The wall clock in UTC; for showing to people, never for deciding."""

    def monotonic(self) -> float:
        """Seconds that never go back; for deadlines and leases."""

    async def sleep(self, seconds: float) -> None:
        """Wait at least this long by the monotonic clock."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
