"""Generated text as a sequence of Markdown blocks, without losing a character.

This is no Markdown parser. It tells apart what matters for citations: code, in which brackets mean nothing, and
pieces that can be taken out of a text on their own. Where Markdown is ambiguous it prefers to see text and not
code, since a citation that is missed is worse than one too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

TAB_COLUMNS = 4

_BULLET = r"(?:[-*+•]|\d{1,9}[.)])"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_SHAPE = re.compile(
    rf"""(?P<indent>[ \t]*+)
    (?: (?P<blank>\s*+\Z)
      | (?P<heading>\#{{1,6}}+(?:\s|\Z))
      | (?P<rule>(?:(?:-[ \t]*+){{3,}}+|(?:\*[ \t]*+){{3,}}+|(?:_[ \t]*+){{3,}}+|=++)\s*+\Z)
      | (?P<quote>>)
      | (?P<footnote>\[\^[^\]\s]++\]:)
      | (?P<item>{_BULLET}(?:\s|\Z))
      | (?P<row>\|)
      | (?P<plain>)
    )""",
    re.VERBOSE,
)
_FENCE = re.compile(rf"([ \t]*+((?:>[ \t]*+)*+)(?:{_BULLET}[ \t]++)?+)(`{{3,}}+|~{{3,}}+)([^\n]*+)")


class Kind(Enum):
    PARAGRAPH = auto()
    QUOTE = auto()
    ITEM = auto()
    TABLE_HEAD = auto()
    """The header row together with the row of dashes below it."""
    TABLE_ROW = auto()
    CODE = auto()
    HEADING = auto()
    RULE = auto()
    FOOTNOTE = auto()
    """The definition of a footnote, ``[^1]: …``."""


_KINDS = {
    "heading": Kind.HEADING,
    "rule": Kind.RULE,
    "quote": Kind.QUOTE,
    "footnote": Kind.FOOTNOTE,
    "item": Kind.ITEM,
    "row": Kind.TABLE_ROW,
    "plain": Kind.PARAGRAPH,
}
_TAKES_PLAIN_LINES = {Kind.PARAGRAPH, Kind.QUOTE, Kind.ITEM, Kind.FOOTNOTE}
_TABLE = {Kind.TABLE_HEAD, Kind.TABLE_ROW}


@dataclass(frozen=True, slots=True)
class Block:
    """A run of whole lines, the blank lines after it included."""

    kind: Kind
    start: int
    end: int
    indent: int
    """In columns."""


def split(text: str) -> list[Block]:
    """The blocks of `text` in order; joined, they are the text. In time linear in its length."""
    starts = list(_Reader(text).read())
    if not starts:
        return [Block(Kind.PARAGRAPH, 0, len(text), 0)] if text else []
    ends = [start for _, start, _ in starts[1:]] + [len(text)]
    # Blank lines before the first block are its own.
    begins = [0, *ends[:-1]]
    return [Block(kind, begin, end, indent) for (kind, _, indent), begin, end in zip(starts, begins, ends, strict=True)]


class _Reader:
    """One pass over the lines; `at` is the line to be read next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = [match.span() for match in _LINE.finditer(text)]
        self.at = 0
        self.open: Kind | None = None
        """The kind of the block that the line before belongs to; None after a blank line."""
        self.trusts_nested_fences = True

    def read(self) -> Iterator[tuple[Kind, int, int]]:
        """Kind, start and indent of each block."""
        while self.at < len(self.lines):
            start, end = self.lines[self.at]
            shape = _SHAPE.match(self.text, start, end)
            assert shape is not None
            indent = len(shape["indent"].expandtabs(TAB_COLUMNS))
            if shape["blank"] is not None:
                self.open = None
                self.at += 1
            elif (kind := self._next(shape)) is not None:
                yield kind, start, indent

    def _next(self, shape: re.Match[str]) -> Kind | None:
        """Consume the lines that are sure to belong together; their kind, or None if they go on with a block."""
        if self._fence():
            self.open = Kind.CODE
            return Kind.CODE
        if self._table_head():
            self.open = Kind.TABLE_HEAD
            return Kind.TABLE_HEAD
        self.at += 1
        kind = self._kind(shape)
        if self._goes_on(kind):
            return None
        self.open = kind
        return kind

    def _kind(self, shape: re.Match[str]) -> Kind:
        kind = _KINDS[shape.lastgroup or "plain"]
        if kind is Kind.ITEM and self.open is Kind.PARAGRAPH and not _may_interrupt(shape["item"]):
            return Kind.PARAGRAPH
        if kind is Kind.PARAGRAPH and self.open in _TABLE and "|" in self._line(self.at - 1):
            return Kind.TABLE_ROW
        return kind

    def _goes_on(self, kind: Kind) -> bool:
        if kind is Kind.PARAGRAPH:
            return self.open in _TAKES_PLAIN_LINES
        return kind is Kind.QUOTE and self.open is Kind.QUOTE

    def _line(self, number: int) -> str:
        start, end = self.lines[number]
        return self.text[start:end]

    def _table_head(self) -> bool:
        below = self.at + 1
        if below == len(self.lines) or "|" not in self._line(self.at) or not _is_delimiter(self._line(below)):
            return False
        self.at += 2
        return True

    def _fence(self) -> bool:
        fence = _FENCE.match(self.text, *self.lines[self.at])
        if fence is None or (fence[3][0] == "`" and "`" in fence[4]):
            return False
        end = self._quoted_end(fence[3]) if fence[2] else self._fence_end(fence[3], nested=bool(fence[1]))
        if end is None:
            return False
        self.at = end
        return True

    def _quoted_end(self, fence: str) -> int:
        """The line after a fence in a quote, which ends with the quote at the latest."""
        for number in range(self.at + 1, len(self.lines)):
            line = self._line(number)
            if not line.lstrip(" \t").startswith(">"):
                return number
            if _closes(line.lstrip(" \t>"), fence):
                return number + 1
        return len(self.lines)

    def _fence_end(self, fence: str, *, nested: bool) -> int | None:
        """The line after a fence; None when it is inside a list and never closed: then what follows the list is
        text again, and where that begins is not known here."""
        if nested and not self.trusts_nested_fences:
            return None
        for number in range(self.at + 1, len(self.lines)):
            if _closes(self._line(number), fence):
                return number + 1
        # Looking for the end of each of many such fences would take quadratic time.
        self.trusts_nested_fences = False
        return None if nested else len(self.lines)


def _closes(line: str, fence: str) -> bool:
    line = line.strip()
    return len(line) >= len(fence) and line[0] == fence[0] and not line.strip(fence[0])


def _is_delimiter(line: str) -> bool:
    return "|" in line and "-" in line and not line.strip("|-: \t\r\n")


def _may_interrupt(bullet: str) -> bool:
    """Whether a list may begin right below a paragraph: a wrapped line may well begin with ``2024.``"""
    number = bullet.rstrip()[:-1]
    return not number.isdecimal() or int(number) == 1
