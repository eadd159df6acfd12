"""The gate: nothing of what a model streams is shown before it was validated, or after its verdict has run out.

Needs pydantic and a function that validates; it imports no database and no server.
"""

from ragver.gate.events import AnswerRetracted, Cut, End, Event, Flag, Released, Retraction, Span
from ragver.gate.sources import TextStream
from ragver.gate.stream import AsyncGatedStream
from ragver.gate.sync import GatedStream

__all__ = [
    "AnswerRetracted",
    "AsyncGatedStream",
    "Cut",
    "End",
    "Event",
    "Flag",
    "GatedStream",
    "Released",
    "Retraction",
    "Span",
    "TextStream",
]
