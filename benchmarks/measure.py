"""Side-by-side timing: the contestants take turns in one run, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

Contestant = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one contestant."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


async def take_turns(contestants: Mapping[str, Contestant], rounds: int, warm_up: int) -> dict[str, Latency]:
    """Call every contestant once a round with the round's number, and time each call."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            await contestant(number)
            elapsed = time.perf_counter() - started
            if number >= warm_up:
                taken[name].append(elapsed * 1000)
    return {name: latency(times) for name, times in taken.items()}


def latency(times_ms: Sequence[float]) -> Latency:
    """The percentiles of these times."""
    ordered = sorted(times_ms)
    p50, p95, p99 = (ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] for percent in (50, 95, 99))
    return Latency(p50, p95, p99)
