"""Taking out of an answer what leans on a bad citation, and tidying up behind it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ragver.citations import pieces, sentences
from ragver.citations.blocks import Kind
from ragver.citations.pieces import Coming, Piece
from ragver.citations.sentences import Unit

Span = tuple[int, int]

NESTED_COLUMNS = 2
"""Indented this much deeper than a list item, a unit belongs to it."""

_SAYS_SOMETHING = {Kind.PARAGRAPH, Kind.QUOTE, Kind.ITEM, Kind.TABLE_ROW, Kind.CODE}
_ENDS_A_LIST = {Kind.PARAGRAPH, Kind.HEADING, Kind.RULE, Kind.FOOTNOTE}
_STANDS_IN_ROWS = {Kind.ITEM, Kind.TABLE_ROW}
_INTRODUCES = re.compile(r"[:：][\s*_]*+(?:\[[^\[\]]*+\][\s*_]*+)*+\Z")
_LOOK_BACK = 200


def cut(text: str, spans: Sequence[Span], cited: Sequence[Span] = ()) -> str:
    """`text` without the units that any of `spans` touches, and without what stands or falls with these:

    * what cites nothing itself and is introduced by a cut unit: the list below ``According to [1]:``, or the
      items nested in a cut item;
    * what a cut ``Source: [1]`` spoke for: the sentence, or the list, right before it;
    * a table whose head is cut, and the head of a table whose rows are all cut.

    What is left keeps its bytes, apart from the white space where something was taken out. Where only headings,
    heads of tables and definitions of footnotes would be left, nothing is. `cited` are places that cite without a
    marker.
    """
    units = sentences.split(text)
    doomed = _touched(units, spans)
    if not any(doomed):
        return text
    citing = zip(pieces.of(text, units), _touched(units, cited), strict=True)
    whole = [replace(piece, cites=True) if cites else piece for piece, cites in citing]
    left = Cutting().take(whole, doomed, last=True)
    return left.text + pieces.white_end(text) if left.says_something else ""


def _touched(units: Sequence[Unit], spans: Sequence[Span]) -> list[bool]:
    doomed = [False] * len(units)
    ends = [unit.end - 1 for unit in units]
    for start, end in spans:
        number = bisect_left(ends, start)
        while number < len(units) and units[number].start < end:
            doomed[number] = True
            number += 1
    return doomed


_Above = tuple[tuple[int, bool], ...]
"""Indent and fate of the items, and of the introduction, that the next unit may belong to."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """How an answer is cut that comes in unit by unit: each state knows what matters for the units to come."""

    left: tuple[str | None, ...] = ()
    """Of each unit that the last step settled: its text and the white space before it, or None if it is cut."""
    says_something: bool = False
    """Whether anything left so far does."""
    cuts: bool = False
    """Whether anything was cut so far."""
    _above: _Above = ()
    _table_is_cut: bool = False
    _gaps: tuple[str, ...] = ()
    """The white space around each unit cut since the last that is left."""
    _started: bool = False

    @property
    def text(self) -> str:
        """What is left of the units that the last step settled."""
        return "".join(filter(None, self.left))

    def take(
        self, units: Sequence[Piece], touched: Sequence[bool], *, coming: Coming | None = None, last: bool = False
    ) -> Cutting:
        """The state after as many of the next units as are settled: whose fate is the same whatever comes.

        `touched` tells which have a bad citation, `coming` what is known of the unit that follows, `last` that
        none does.
        """
        doomed = list(touched)
        _doom_introduced(units, doomed, self._above)
        _doom_spoken_for(units, doomed)
        goes_on = not last and (coming is None or coming.kind is Kind.TABLE_ROW)
        _doom_tables(units, doomed, table_is_cut=self._table_is_cut, goes_on=goes_on)
        number = len(units) if last else self._settled(units, doomed, coming)
        cuts = self.cuts or any(doomed[:number])
        says_something = self.says_something or _any_says_something(units[:number], doomed)
        if last and cuts and not says_something:
            doomed = [True] * number
        return replace(
            self._joined(units[:number], doomed),
            says_something=says_something,
            cuts=cuts,
            _above=_doom_introduced(units[:number], list(touched), self._above),
            _table_is_cut=_is_table_cut(units[:number], doomed, self._table_is_cut),
        )

    def _settled(self, units: Sequence[Piece], doomed: Sequence[bool], coming: Coming | None) -> int:
        number = _may_be_spoken_for(units, doomed, coming)
        number = _undecided_head(units, doomed, number, coming)
        # Where headings alone would be left, nothing is: they wait for the first unit that says something.
        return number if self.says_something or _any_says_something(units[:number], doomed) else 0

    def _joined(self, units: Sequence[Piece], doomed: Sequence[bool]) -> Cutting:
        gaps, started = list(self._gaps), self._started
        left: list[str | None] = []
        for unit, gone in zip(units, doomed, strict=False):
            gaps.append(unit.gap)
            left.append(None if gone else _gap(gaps, at_start=not started) + unit.body)
            if not gone:
                gaps, started = [], True
        return replace(self, left=tuple(left), _gaps=tuple(gaps), _started=started)


def _doom_introduced(units: Sequence[Piece], doomed: list[bool], above: _Above) -> _Above:
    open_ = list(above)
    for number, unit in enumerate(units):
        top = unit.indent < NESTED_COLUMNS
        if top and unit.kind in _ENDS_A_LIST:
            open_.clear()
        while open_ and unit.indent < open_[-1][0] + NESTED_COLUMNS:
            open_.pop()
        if open_ and open_[-1][1] and not unit.cites and unit.kind is not Kind.TABLE_HEAD:
            doomed[number] = True
        if unit.kind is Kind.ITEM:
            open_.append((unit.indent, doomed[number]))
        elif top and unit.kind is Kind.PARAGRAPH and _INTRODUCES.search(unit.body[-_LOOK_BACK:]):
            open_.append((-NESTED_COLUMNS, doomed[number]))
    return tuple(open_)


def _doom_spoken_for(units: Sequence[Piece], doomed: list[bool]) -> None:
    for number, unit in enumerate(units):
        if not (doomed[number] and unit.bare):
            continue
        kind = units[number - 1].kind if number else None
        for before in range(number - 1, -1, -1):
            if units[before].kind is not kind or kind not in _SAYS_SOMETHING or units[before].cites or doomed[before]:
                break
            doomed[before] = True
            if kind not in _STANDS_IN_ROWS:
                break


def _may_be_spoken_for(units: Sequence[Piece], doomed: Sequence[bool], coming: Coming | None) -> int:
    """Where those units begin, up to the last, that what comes may yet speak for."""
    number = len(units)
    kind = units[-1].kind if units else None
    if kind not in _SAYS_SOMETHING:
        return number
    in_rows = kind in _STANDS_IN_ROWS
    if coming is not None and not coming.may_be_bare and not (in_rows and coming.kind is kind):
        return number
    while number and units[number - 1].kind is kind and not units[number - 1].cites and not doomed[number - 1]:
        number -= 1
        if not in_rows:
            break
    return number


def _doom_tables(units: Sequence[Piece], doomed: list[bool], *, table_is_cut: bool, goes_on: bool) -> None:
    """`goes_on`: more rows may follow the last unit, so that a head is not yet doomed by the rows there are."""
    rows = _rows(units, 0)
    if table_is_cut:
        doomed[:rows] = [True] * rows
    for number, unit in enumerate(units):
        if unit.kind is not Kind.TABLE_HEAD:
            continue
        end = _rows(units, number + 1)
        if doomed[number]:
            doomed[number:end] = [True] * (end - number)
        elif end > number + 1 and all(doomed[number + 1 : end]) and not (goes_on and end == len(units)):
            doomed[number] = True


def _rows(units: Sequence[Piece], start: int) -> int:
    """The end of the rows of a table that begin at `start`."""
    while start < len(units) and units[start].kind is Kind.TABLE_ROW:
        start += 1
    return start


def _undecided_head(units: Sequence[Piece], doomed: Sequence[bool], number: int, coming: Coming | None) -> int:
    """The head of a table among the first `number` units if it still waits for a row that is left, else `number`."""
    head = number - 1
    while head >= 0 and units[head].kind is Kind.TABLE_ROW:
        head -= 1
    if head < 0 or units[head].kind is not Kind.TABLE_HEAD or not all(doomed[head + 1 : number]) or doomed[head]:
        return number
    follows = units[number].kind if number < len(units) else coming and coming.kind
    return head if follows in (None, Kind.TABLE_ROW) else number


def _is_table_cut(units: Sequence[Piece], doomed: Sequence[bool], before: bool) -> bool:
    for unit, gone in zip(units, doomed, strict=False):
        if unit.kind is Kind.TABLE_HEAD:
            before = gone
        elif unit.kind is not Kind.TABLE_ROW:
            before = False
    return before


def _any_says_something(units: Sequence[Piece], doomed: Sequence[bool]) -> bool:
    return any(
        not gone and unit.kind in _SAYS_SOMETHING and any(map(str.isalnum, unit.body))
        for unit, gone in zip(units, doomed, strict=False)
    )


def _gap(gaps: Sequence[str], *, at_start: bool) -> str:
    """The white space between two neighbours, given that around each unit taken out between them."""
    if len(gaps) == 1:
        return gaps[0]
    broken = [gap for gap in gaps if "\n" in gap]
    indent = (broken[-1] if broken else gaps[0]).rpartition("\n")[2]
    if at_start or not broken:
        return indent or ("" if at_start else gaps[-1])
    widest = max(broken, key=lambda gap: min(gap.count("\n"), 2))
    return widest[: widest.rindex("\n") + 1] + indent
