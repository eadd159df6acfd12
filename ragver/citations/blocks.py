"""Generated text as a sequence of Markdown blocks, without losing a character.

This is no Markdown parser. It tells apart what matters for citations: code, in which brackets mean nothing, and
pieces that can be taken out of a text on their own. Where Markdown is ambiguous it prefers to see text and not
code, since a citation that is missed is worse than one too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

TAB_COLUMNS = 4
STOPS = ".!?…؟۔।॥"
"""End a sentence, where white space follows."""
IDEOGRAPHIC_STOPS = "。！？｡"
"""End a sentence, whatever follows."""

_BULLET = r"(?:[-*+•]|\d{1,9}[.)])"
_INDENT = re.compile(r"[ \t]*+")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_SHAPE = re.compile(
    rf"""[ \t]*+
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
# What the beginning of a line that is still being written already decides. `plain`: no more text makes anything
# else of the line than a paragraph's, apart from a bar, which may make it the head of a table.
_BEGINNING = re.compile(
    rf"""[ \t]*+
    (?: (?P<heading>\#{{1,6}}+\s)
      | (?P<row>\|)
      | (?P<quote>>)
      | (?P<footnote>\[\^[^\]\s]++\]:)
      | (?P<item>{_BULLET}[ \t])
      | (?P<plain>[^\s\#*+•=_>|`~\[\d-]
          | \[[^\^]
          | \[\^[^\]\s]*+(?:\s|\][^:])
          | \#{{1,6}}+[^\s\#] | \#{{7}}
          | \d{{1,9}}+(?:[^\d.)] | [.)]\S) | \d{{10}}
          | [*+•=_-][*+•=_ \t-]*+[^\s*+•=_-]
          | `{{1,2}}+[^`] | ~{{1,2}}+[^~]
        )
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
_STOP = re.compile(f"[{re.escape(STOPS)}]")
_IDEOGRAPHIC_STOP = re.compile(f"[{IDEOGRAPHIC_STOPS}]")
_NEXT_WORD = re.compile(r"\s\S")


@dataclass(frozen=True, slots=True)
class Block:
    """A run of whole lines, the blank lines after it included."""

    kind: Kind
    start: int
    end: int
    indent: int
    """In columns."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Where a block begins."""

    kind: Kind
    start: int
    indent: int
    below: Kind | None
    """The kind of the block right above it; None if there is a blank line between them, or nothing."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A text that is still being written, as far as no more of it can change how its lines read."""

    openings: list[Opening]
    rest: int
    """Where the first line begins that is not settled."""
    open: Kind | None
    """The kind of the block right above that line; None after a blank line."""


def split(text: str, below: Kind | None = None) -> list[Block]:
    """The blocks of `text` in order; joined, they are the text. In time linear in its length.

    `below` is the kind of the block that the line before the text belongs to; None after a blank line.
    """
    return between(list(_Reader(text, below).read()), len(text))


def between(openings: Sequence[Opening], length: int) -> list[Block]:
    """The blocks of a text of this length that begin at these places."""
    if not openings:
        return [Block(Kind.PARAGRAPH, 0, length, 0)] if length else []
    ends = [opening.start for opening in openings[1:]] + [length]
    # Blank lines before the first block are its own.
    begins = [0, *ends[:-1]]
    return [Block(it.kind, begin, end, it.indent) for it, begin, end in zip(openings, begins, ends, strict=True)]


def settled(text: str, below: Kind | None) -> Settled:
    """The lines at the beginning of `text` that read the same whatever is written after it; `below` as above."""
    reader = _Reader(text, below, whole=False)
    openings = list(reader.read())
    rest = reader.lines[reader.at][0] if reader.at < len(reader.lines) else len(text)
    return Settled(openings, rest, reader.open)


def beginning(text: str, read: Settled) -> Opening | None:
    """What the line at `read.rest` is sure to be; None if that is not decided yet.

    A paragraph may as well be one more line of the block above; all else begins a block of its own. A head of a
    table counts as a row.
    """
    line = text[read.rest : text.find("\n", read.rest) + 1 or len(text)]
    kind = _sure_kind(line, read.open)
    return None if kind is None else Opening(kind, read.rest, _columns(_INDENT.match(line)), read.open)


def _sure_kind(line: str, below: Kind | None) -> Kind | None:
    fence = _FENCE.match(line)
    if fence is not None:
        return Kind.CODE if not fence[1] and line.endswith("\n") and _may_open(fence) else None
    shape = _BEGINNING.match(line)
    if shape is None:
        return None
    kind = _KINDS[shape.lastgroup or "plain"]
    match kind:
        case Kind.PARAGRAPH:
            decided = "|" not in line and below not in _TABLE
        case Kind.QUOTE:
            decided = below is not Kind.QUOTE
        case Kind.ITEM:
            decided = below is not Kind.PARAGRAPH or _may_interrupt(shape["item"])
        case _:
            decided = True
    return kind if decided else None


def _columns(indent: re.Match[str] | None) -> int:
    assert indent is not None
    return len(indent[0].expandtabs(TAB_COLUMNS))


class _Reader:
    """One pass over the lines; `at` is the line to be read next."""

    def __init__(self, text: str, below: Kind | None = None, *, whole: bool = True) -> None:
        self.text = text
        self.lines = [match.span() for match in _LINE.finditer(text)]
        self.at = 0
        self.open = below
        """The kind of the block that the line before belongs to; None after a blank line."""
        self.whole = whole
        """Nothing is written after the text."""
        self.trusts_nested_fences = True

    def read(self) -> Iterator[Opening]:
        """Each block; stops at the first line that is not settled."""
        while self.at < len(self.lines) and (self.whole or self._is_settled()):
            start, end = self.lines[self.at]
            below = self.open
            shape = _SHAPE.match(self.text, start, end)
            assert shape is not None
            if shape["blank"] is not None:
                self.open = None
                self.at += 1
            elif (kind := self._next(shape)) is not None:
                yield Opening(kind, start, _columns(_INDENT.match(self.text, start)), below)

    def _is_settled(self) -> bool:
        """Whether no more text changes how the present line reads."""
        line = self._line(self.at)
        if not line.endswith("\n"):
            return False
        fence = _FENCE.match(line)
        if fence is not None and _may_open(fence):
            return self._code_end(fence) is not None
        return not _may_be_table_head(line) or self._reads_alone(self.at + 1)

    def _reads_alone(self, number: int) -> bool:
        """Whether it is decided if the line is the row of dashes below a table's head."""
        if number == len(self.lines):
            return False
        line = self._line(number)
        return line.endswith("\n") or bool(line.strip("|-: \t\r"))

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
        if below == len(self.lines) or not _is_delimiter(self._line(below)):
            return False
        if not _may_be_table_head(self._line(self.at)):
            return False
        self.at += 2
        return True

    def _fence(self) -> bool:
        fence = _FENCE.match(self.text, *self.lines[self.at])
        if fence is None or not _may_open(fence):
            return False
        nested = bool(fence[1]) and not fence[2]
        end = self._code_end(fence) if self.trusts_nested_fences or not nested else None
        if end is None and nested:
            # Inside a list and never closed: then what follows the list is text again, and where that begins is
            # not known here. Looking for the end of each of many such fences would take quadratic time.
            self.trusts_nested_fences = False
            return False
        self.at = len(self.lines) if end is None else end
        return True

    def _code_end(self, fence: re.Match[str]) -> int | None:
        """The line after the code that a fence opens, None if it is not closed; in a quote it ends with the quote."""
        for number in range(self.at + 1, len(self.lines)):
            line = self._line(number)
            if not self.whole and not line.endswith("\n"):
                return None
            if fence[2] and not line.lstrip(" \t").startswith(">"):
                return number
            if _closes(line.lstrip(" \t>") if fence[2] else line, fence[3]):
                return number + 1
        return None


def _may_open(fence: re.Match[str]) -> bool:
    return fence[3][0] != "`" or "`" not in fence[4]


def _closes(line: str, fence: str) -> bool:
    line = line.strip()
    return len(line) >= len(fence) and line[0] == fence[0] and not line.strip(fence[0])


def _may_be_table_head(line: str) -> bool:
    """Not where a sentence ends before the first bar: such a text has been read as sentences, and perhaps shown,
    before anybody could see the bar."""
    bar = line.find("|")
    if bar < 0 or _IDEOGRAPHIC_STOP.search(line, 0, bar):
        return False
    stop = _STOP.search(line, 0, bar)
    return stop is None or _NEXT_WORD.search(line, stop.end(), bar) is None


def _is_delimiter(line: str) -> bool:
    return "|" in line and "-" in line and not line.strip("|-: \t\r\n")


def _may_interrupt(bullet: str) -> bool:
    """Whether a list may begin right below a paragraph: a wrapped line may well begin with ``2024.``"""
    number = bullet.rstrip()[:-1]
    return not number.isdecimal() or int(number) == 1
