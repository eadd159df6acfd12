"""What a gate lets out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ragver import wire
from ragver.errors import GateError
from ragver.types import Decision

Span = tuple[int, int]
"""From and up to which character of the text released so far."""


class Released(str):
    """The next piece of the text, which was validated: a string that knows how long it may be shown.

    Whoever passes it on looks at `late` last of all, and drops it, and ends the answer, when it is.
    """

    deadline_s: float
    """When the lease of its verdict ends, by the clock of the gate."""

    def __new__(cls, text: str, deadline_s: float, now: Callable[[], float]) -> Released:
        piece = super().__new__(cls, text)
        piece.deadline_s = deadline_s
        piece._now = now
        return piece

    _now: Callable[[], float]

    @property
    def late(self) -> bool:
        """Whether the lease has run out."""
        return self._now() >= self.deadline_s

    @property
    def valid_for_ms(self) -> int:
        """What is left of the lease: for a hop in another process, which counts from before it got the piece."""
        return max(0, int((self.deadline_s - self._now()) * 1000))


@dataclass(frozen=True, slots=True)
class Cut:
    """Something was cut, since it leans on a bad citation (policy `redact`)."""

    at: int
    """Where it would stand in the text released so far."""
    citations: tuple[wire.CitationVerdict, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """Text that was released leans on a citation that is bad, or has gone bad since."""

    citations: tuple[wire.CitationVerdict, ...]
    spans: tuple[Span, ...]
    """The claims that lean on these; none where the text does not say which do."""


@dataclass(frozen=True, slots=True)
class Retraction:
    """The answer cannot stand: take back what was shown of it. The last event of its stream."""

    detail: str
    """What is wrong, for people."""
    citations: tuple[wire.CitationVerdict, ...]
    released: str
    """All that was let out before."""


@dataclass(frozen=True, slots=True)
class End:
    """The answer is out. The last event of its stream."""

    decision: Decision
    """`flag` if anything was flagged or cut."""
    released: str
    """The whole text."""
    verdict: wire.ValidateResponse
    """On everything that the text cites, asked for after it was complete."""


Event = Released | Cut | Flag | Retraction | End


class AnswerRetracted(GateError):
    """Raised in place of the next piece of text where a ``Retraction`` ends the stream."""

    code, status, title = "answer_retracted", 409, "The answer leans on what no longer stands"

    def __init__(self, retraction: Retraction) -> None:
        super().__init__(retraction.detail)
        self.retraction = retraction
