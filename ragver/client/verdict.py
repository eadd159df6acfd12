"""Verdicts, and the time within which they may be acted on."""

from __future__ import annotations

import time
from typing import Self

import httpx
from pydantic import PrivateAttr

from ragver import wire
from ragver.client.bodies import parsed

ASKED = "ragver_asked_s"
"""The extension of a response that says when, by ``time.monotonic``, the attempt began that it answers."""


class Lease(wire.Body):
    """How long a verdict holds, by this process's monotonic clock.

    It counts from before the request was sent, so it ends here no later than on the server, however long the way back
    took.
    """

    valid_for_ms: int
    _asked_s: float = PrivateAttr(default=float("-inf"))

    @classmethod
    def received(cls, response: httpx.Response) -> Self:
        """The verdict in an answer, its lease counted from the attempt that got it."""
        verdict = parsed(cls, response)
        verdict._asked_s = response.extensions[ASKED]
        return verdict

    @property
    def deadline_s(self) -> float:
        """When it ends, as ``time.monotonic`` tells it: text may be released before, and not from then on."""
        return self._asked_s + self.valid_for_ms / 1000

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline; negative once it is past."""
        return self.deadline_s - time.monotonic()

    def still_valid(self) -> bool:
        """Whether text may still be released on it. If not, ask again."""
        return self.remaining_s > 0


class Verdict(Lease, wire.ValidateResponse):
    """The validator's answer for one piece of generated text."""


class Reuse(Lease, wire.RevalidateResponse):
    """Whether a recorded answer may be served again."""


class ReuseOfMany(Lease, wire.RevalidateManyResponse):
    """The same for many answers."""
