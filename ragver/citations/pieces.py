"""Units with their text, as they are handed from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragver.citations import markers
from ragver.citations.blocks import Kind
from ragver.citations.sentences import Unit


@dataclass(frozen=True, slots=True)
class Piece:
    """A unit with its text."""

    gap: str
    """The white space before it."""
    body: str
    kind: Kind
    indent: int
    cites: bool
    bare: bool
    targets: tuple[int, ...]
    """What its markers name, in order and as often as they do."""
    label: int | None
    """What the label of a footnote's definition names, if it is a number."""


@dataclass(frozen=True, slots=True)
class Coming:
    """What is known of the unit that comes next, while it is being written."""

    kind: Kind
    """A head of a table counts as a row."""
    may_be_bare: bool


def of(text: str, units: Sequence[Unit], gap: str = "") -> list[Piece]:
    """The units of a text as pieces; `gap` is white space before the text."""
    texts = [text[unit.start : unit.end] for unit in units]
    gaps = [gap + _white_start(texts[0]) if texts else "", *map(white_end, texts)]
    return [_piece(unit, before, own) for unit, before, own in zip(units, gaps, texts, strict=False)]


def _piece(unit: Unit, gap: str, text: str) -> Piece:
    targets = tuple(target for marker in unit.markers for target in marker.targets)
    label = markers.label(text) if unit.kind is Kind.FOOTNOTE else None
    return Piece(gap, text.strip(), unit.kind, unit.indent, unit.cites, unit.bare, targets, label)


def _white_start(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def white_end(text: str) -> str:
    """The white space at the end of a text."""
    return text[len(text.rstrip()) :]
