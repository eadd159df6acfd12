"""Time as a dependency, so that leases and deadlines can be tested without waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
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


class LeaseClock(SystemClock):
    """For whoever holds a lease: where the system can tell, its time also passes while the machine is asleep."""

    def monotonic(self) -> float:
        return _with_sleep()


def _clock_with_sleep() -> Callable[[], float]:
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if boottime is None else partial(time.clock_gettime, boottime)


_with_sleep = _clock_with_sleep()
