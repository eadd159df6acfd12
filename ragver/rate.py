"""A token bucket: so many requests a second, and no more than a second's worth at once."""

from __future__ import annotations

BURST_S = 1.0
"""How much may be saved up; never less than one request."""


class Bucket:
    """Counts in one process and one event loop. Times are those of a monotonic clock, in seconds."""

    def __init__(self, rate_per_s: float, now: float) -> None:
        self.rate_per_s = rate_per_s
        self._most = max(1.0, rate_per_s * BURST_S)
        self._tokens = self._most
        self._counted_at = now

    def take(self, now: float) -> float:
        """Take a token: 0 if there was one, else the seconds until there is, and nothing is taken."""
        earned = max(0.0, now - self._counted_at) * self.rate_per_s
        self._tokens = min(self._most, self._tokens + earned)
        self._counted_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self.rate_per_s
        self._tokens -= 1.0
        return 0.0
