"""Taking out of an answer what leans on a bad citation, and tidying up behind it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from ragver.citations import sentences
from ragver.citations.blocks import Kind
from ragver.citations.sentences import Unit

NESTED_COLUMNS = 2
"""Indented this much deeper than a list item, a unit belongs to it."""

_SAYS_SOMETHING = {Kind.PARAGRAPH, Kind.QUOTE, Kind.ITEM, Kind.TABLE_ROW, Kind.CODE}
_ENDS_A_LIST = {Kind.PARAGRAPH, Kind.HEADING, Kind.RULE, Kind.FOOTNOTE}
_STANDS_IN_ROWS = {Kind.ITEM, Kind.TABLE_ROW}
_INTRODUCES = re.compile(r"[:：][\s*_]*+(?:\[[^\[\]]*+\][\s*_]*+)*+\Z")
_LOOK_BACK = 200


def cut(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """`text` without the units that any of `spans` touches, and without what stands or falls with these:

    * what cites nothing itself and is introduced by a cut unit: the list below ``According to [1]:``, or the
      items nested in a cut item;
    * what a cut ``Source: [1]`` spoke for: the sentence, or the list, right before it;
    * a table whose head is cut, and the head of a table whose rows are all cut.

    What is left keeps its bytes, apart from the white space where something was taken out. Where only headings,
    heads of tables and definitions of footnotes would be left, nothing is.
    """
    units = sentences.split(text)
    doomed = _touched(units, spans)
    if not any(doomed):
        return text
    _doom_introduced(text, units, doomed)
    _doom_spoken_for(units, doomed)
    _doom_tables(units, doomed)
    left = [unit for unit, gone in zip(units, doomed, strict=True) if not gone]
    return _joined(text, units, doomed) if any(_says_something(text, unit) for unit in left) else ""


def _touched(units: Sequence[Unit], spans: Sequence[tuple[int, int]]) -> list[bool]:
    doomed = [False] * len(units)
    ends = [unit.end - 1 for unit in units]
    for start, end in spans:
        number = bisect_left(ends, start)
        while number < len(units) and units[number].start < end:
            doomed[number] = True
            number += 1
    return doomed


def _doom_introduced(text: str, units: Sequence[Unit], doomed: list[bool]) -> None:
    above: list[tuple[int, bool]] = []
    """Indent and fate of the items, and the introduction, that the present unit may belong to."""
    for number, unit in enumerate(units):
        top = unit.indent < NESTED_COLUMNS
        if top and unit.kind in _ENDS_A_LIST:
            above.clear()
        while above and unit.indent < above[-1][0] + NESTED_COLUMNS:
            above.pop()
        if above and above[-1][1] and not unit.cites and unit.kind is not Kind.TABLE_HEAD:
            doomed[number] = True
        if unit.kind is Kind.ITEM:
            above.append((unit.indent, doomed[number]))
        elif top and unit.kind is Kind.PARAGRAPH and _introduces(text, unit):
            above.append((-NESTED_COLUMNS, doomed[number]))


def _introduces(text: str, unit: Unit) -> bool:
    return _INTRODUCES.search(text[max(unit.start, unit.end - _LOOK_BACK) : unit.end]) is not None


def _doom_spoken_for(units: Sequence[Unit], doomed: list[bool]) -> None:
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


def _doom_tables(units: Sequence[Unit], doomed: list[bool]) -> None:
    for number, unit in enumerate(units):
        if unit.kind is not Kind.TABLE_HEAD:
            continue
        end = number + 1
        while end < len(units) and units[end].kind is Kind.TABLE_ROW:
            end += 1
        if doomed[number]:
            doomed[number:end] = [True] * (end - number)
        elif end > number + 1 and all(doomed[number + 1 : end]):
            doomed[number] = True


def _says_something(text: str, unit: Unit) -> bool:
    return unit.kind in _SAYS_SOMETHING and any(map(str.isalnum, text[unit.start : unit.end]))


def _joined(text: str, units: Sequence[Unit], doomed: Sequence[bool]) -> str:
    first = text[units[0].start : units[0].end]
    gaps = [first[: len(first) - len(first.lstrip())]]
    left: list[str] = []
    for unit, gone in zip(units, doomed, strict=True):
        piece = text[unit.start : unit.end]
        body = piece.strip()
        if not gone:
            left += (_gap(gaps, at_start=not left), body)
            gaps.clear()
        gaps.append(piece[len(piece.rstrip()) :])
    return "".join(left) + gaps[-1]


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
