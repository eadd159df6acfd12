"""Side-by-side timing: the contestants take turns in one run, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Contestant = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one contestant."""

    median_ms: float
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
    return {name: _latency(times) for name, times in taken.items()}


def _latency(times_ms: list[float]) -> Latency:
    ordered = sorted(times_ms)
    return Latency(statistics.median(ordered), ordered[int(len(ordered) * 0.99)])
