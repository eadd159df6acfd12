"""Markers with numbers: ``[1]``, ``[2, 3]``, ``【4】``, ``[chunk:100042]``, as ``markers`` reads them.

A number up to `REF_MAX` is the place of a document among the sources, from 1; a larger one is a chunk id.
"""

from __future__ import annotations

from ragver.citations import markers
from ragver.citations.cited import Citation, Cited, Sources
from ragver.types import REF_MAX


def parse(answer: str, sources: Sources) -> Cited:
    """A text with markers."""
    return Cited(answer, tuple(cited(answer, sources)))


def cited(text: str, sources: Sources) -> list[Citation]:
    """The markers of a text as citations."""
    return [
        Citation(marker.start, marker.end, tuple(target_of(number, sources) for number in marker.targets))
        for marker in markers.parse(text)
    ]


def target_of(number: int, sources: Sources) -> int:
    """What a number in a marker stands for."""
    return sources.numbered(number) if number <= REF_MAX else number
