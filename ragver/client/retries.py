"""When a call is made again: how often, after which wait, and until when."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retries:
    """How patiently a client repeats a call that failed with a retryable error.

    The wait before each repetition doubles up to a bound, a random half of it left out, so that many clients that
    failed together do not come back together. A server's ``Retry-After`` is waited for in any case.
    """

    attempts_max: int = 5
    """The first attempt included; 1 repeats nothing."""
    first_wait_s: float = 0.2
    wait_s_max: float = 5.0

    def wait_s(
        self,
        attempts: int,
        left_s: float,
        retry_after_s: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """How long to wait after so many attempts before the next; None if there is to be none.

        `left_s` is what is left until the call's deadline: a wait that would reach it is not begun.
        """
        if attempts >= self.attempts_max:
            return None
        longest = min(self.wait_s_max, self.first_wait_s * 2 ** (attempts - 1))
        wait = max(retry_after_s or 0.0, longest * (1 + draw()) / 2)
        return wait if wait < left_s else None


NO_RETRIES = Retries(attempts_max=1)
"""Every failure is told at once."""
