"""The units of a text that is still being written, each as soon as no more text can change it.

Fed to the end, in pieces of any size, it gives the units that ``sentences.split`` finds in the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ragver.citations import blocks, markers, pieces, sentences
from ragver.citations.blocks import IDEOGRAPHIC_STOPS, STOPS, Block, Kind
from ragver.citations.pieces import Coming, Piece
from ragver.citations.sentences import Unit

LOOK_CHARACTERS = 2_048
"""A block longer than this is looked at again only when it has grown by a part of its length, so that a text of n
characters costs at most n times this, and not n squared."""
LOOK_AGAIN_AT = 9 / 8

_TAKES_LINES = {Kind.PARAGRAPH, Kind.QUOTE, Kind.ITEM, Kind.FOOTNOTE}
"""What further plain lines may belong to."""
_OPENS_MARKER = "[【［\\"
_PARENTHESIS = re.compile(r"[()]")
_BREAKS = re.escape(STOPS + IDEOGRAPHIC_STOPS + "`[【［")
# Three words: the unit says something by itself. Not across a full stop, where it may end.
_SAYS_SOMETHING = re.compile(rf"\s*+(?:(?:(?!\w)[^\s{_BREAKS}])*+\w[^\s{_BREAKS}]*+\s++){{3}}")


class Growing:
    """A text to be fed with pieces."""

    def __init__(self) -> None:
        self._text = ""
        """From the beginning of the first block that is not over."""
        self._fresh: list[str] = []
        self._below: Kind | None = None
        self._gap = ""
        """White space before `_text` that no unit has taken yet."""
        self._given = 0
        """How many units of `_text` have been given out."""
        self._length = self._look_at = 0
        self._out = 0
        """Up to where `_text` has been given out."""
        self.coming: Coming | None = None
        """None while nothing is certain."""

    @property
    def held(self) -> int:
        """How many characters have not been given out yet."""
        return self._length - self._out

    def feed(self, text: str) -> list[Piece]:
        """Take more text; the units that are over now, as far as it was time to look."""
        self._fresh.append(text)
        self._length += len(text)
        return [] if self._length < self._look_at else self.look()

    def look(self) -> list[Piece]:
        """The units that are over now and have not been given out."""
        self._join()
        read = _Reading.of(self._text, self._below)
        over = self._pieces(read.units, read.over)
        # A bar may come that leaves open again what a line is; not the sentences before it.
        self._given = max(self._given, read.over)
        self.coming = read.coming(self._given)
        if over:
            self._out = read.units[self._given - 1].end
        self._let_go(read)
        self._length = len(self._text)
        self._look_at = int(self._length * LOOK_AGAIN_AT) if self._length > LOOK_CHARACTERS else 0
        return over

    def end(self) -> tuple[list[Piece], str]:
        """Nothing more is to come: the remaining units, and the white space after the last."""
        self._join()
        self.coming = None
        if not self._text.strip():
            return [], self._gap + self._text
        units = sentences.of_blocks(self._text, blocks.split(self._text, self._below))
        return self._pieces(units, len(units)), pieces.white_end(self._text)

    def _join(self) -> None:
        self._text = "".join((self._text, *self._fresh))
        self._fresh.clear()

    def _pieces(self, units: Sequence[Unit], over: int) -> list[Piece]:
        """The units that are over and have not been given out."""
        return pieces.of(self._text, units[:over], self._gap)[self._given :]

    def _let_go(self, read: _Reading) -> None:
        """Forget the blocks that are over."""
        at = read.open_at
        if not any(unit.start < at for unit in read.units):
            return
        self._given -= sum(unit.start < at for unit in read.units)
        self._gap = pieces.white_end(self._text[:at])
        self._text, self._below = self._text[at:], read.below
        self._out = max(0, self._out - at)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What can be said of a text that more will be written to."""

    text: str
    units: list[Unit]
    over: int
    """How many of these no more text can change."""
    open_at: int
    """Where the first block begins that is not over."""
    below: Kind | None
    """What is above it."""
    next_kind: Kind | None
    """The kind of the block that comes after the units, if that is certain."""

    @classmethod
    def of(cls, text: str, below: Kind | None) -> _Reading:
        read = blocks.settled(text, below)
        openings = read.openings
        coming = blocks.beginning(text, read)
        plain = coming is not None and coming.kind is Kind.PARAGRAPH
        over = not openings or read.open not in _TAKES_LINES or (coming is not None and not plain)
        if plain and over and coming is not None:
            openings = [*openings, coming]
        elif over:
            units = sentences.of_blocks(text, blocks.between(openings, read.rest)) if openings else []
            return cls(text, units, len(units), read.rest, read.open, None if coming is None else coming.kind)
        read_blocks = blocks.between(openings, len(text) if plain else read.rest)
        units = sentences.of_blocks(text, read_blocks)
        open_block = read_blocks[-1]
        before = sum(unit.start < open_block.start for unit in units)
        sure = _sure(text, open_block, units[before:]) if open_block.kind is Kind.PARAGRAPH else 0
        return cls(text, units, before + sure, open_block.start, openings[-1].below, None)

    def coming(self, number: int) -> Coming | None:
        """What is known of a unit that is not over."""
        if number >= len(self.units):
            return None if self.next_kind is None else Coming(self.next_kind, may_be_bare=False)
        unit = self.units[number]
        says_something = unit.kind is not Kind.PARAGRAPH or _SAYS_SOMETHING.match(self.text, unit.start)
        return Coming(unit.kind, may_be_bare=not says_something)


def _sure(text: str, block: Block, units: Sequence[Unit]) -> int:
    """How many of the sentences of a paragraph that is being written no more text can change."""
    limit = min(markers.settled_end(text, block), _end_of_sentences(text, block))
    sure = 0
    for unit in units[:-1]:
        following = text[unit.end]
        if unit.end >= limit or (following == "(" and not _PARENTHESIS.search(text, unit.end + 1, block.end)):
            break
        sure += 1
    return sure


def _end_of_sentences(text: str, block: Block) -> int:
    """Up to where a paragraph falls into sentences even if it turns out to be a list of sources."""
    first, *others = (text[start] in _OPENS_MARKER for start in sentences.line_starts(text, block))
    if not all(others):
        return block.end
    if first:
        return block.start
    return sentences.line_starts(text, block)[1] if others else block.end
