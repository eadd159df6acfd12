"""A verdict and the time within which it may be acted on."""

from __future__ import annotations

import time
from typing import Self

import httpx
from pydantic import PrivateAttr

from ragver.client.bodies import parsed
from ragver.wire import ValidateResponse

ASKED = "ragver_asked_s"
"""The extension of a response that says when, by ``time.monotonic``, the attempt began that it answers."""


class Verdict(ValidateResponse):
    """The validator's answer, and its lease by this process's monotonic clock.

    The lease counts from before the request was sent, so it ends here no later than on the server, however long
    the way back took.
    """

    _asked_s: float = PrivateAttr(default=float("-inf"))

    @classmethod
    def received(cls, response: httpx.Response) -> Self:
        """The verdict in an answer, its lease counted from the attempt that got it."""
        verdict = parsed(cls, response)
        verdict._asked_s = response.extensions[ASKED]
        return verdict

    @property
    def deadline_s(self) -> float:
        """When the lease ends, as ``time.monotonic`` tells it: text may be released before, and not from then on."""
        return self._asked_s + self.valid_for_ms / 1000

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it is past."""
        return self.deadline_s - time.monotonic()

    def still_valid(self) -> bool:
        """Whether text may still be released on it. If not, validate again."""
        return self.remaining_s > 0
