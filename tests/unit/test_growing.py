"""A text that is being written falls into the same units as the whole, however it arrives."""

from __future__ import annotations

from hypothesis import given

from ragver.citations import sentences
from ragver.citations.growing import Growing
from ragver.citations.pieces import Piece
from tests.support.markdown import ANSWERS, MARKDOWN


def whole(text: str) -> list[tuple[str, object, int, bool, tuple[int, ...]]]:
    return [
        (text[u.start : u.end].strip(), u.kind, u.indent, u.bare, tuple(t for m in u.markers for t in m.targets))
        for u in sentences.split(text)
        if text[u.start : u.end].strip()
    ]


def described(pieces: list[Piece]) -> list[tuple[str, object, int, bool, tuple[int, ...]]]:
    return [(piece.body, piece.kind, piece.indent, piece.bare, piece.targets) for piece in pieces]


@given(MARKDOWN | ANSWERS)
def test_no_more_text_changes_a_unit_that_was_given_out(text: str) -> None:
    """Fed character by character, with everything looked at each time: the hardest split."""
    growing = Growing()
    pieces: list[Piece] = []
    for character in text:
        pieces += growing.feed(character)
    rest, gap = growing.end()
    pieces += rest
    assert whole(text) == described(pieces)
    assert text == "".join(piece.gap + piece.body for piece in pieces) + gap
