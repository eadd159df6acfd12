"""Citation markers in generated text: ``[1]``, ``[1, 2]``, ``[1-3]``, ``[^1]``, ``【1】``, ``[chunk:100042]``.

A number up to ``REF_MAX`` is a ref, a larger one a chunk id. Whatever looks like a marker is returned, also when
its number points nowhere: a made-up citation must come to light. Code and images hold no markers, and the
definition of a footnote is none.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from ragver.citations import blocks
from ragver.citations.blocks import Block, Kind
from ragver.types import REF_MAX

RANGE_MAX = 100
"""The most members that ``[1-100]`` may stand for."""
DIGITS_MAX = 19
"""As many as the largest chunk id has."""
UNREADABLE = 10**DIGITS_MAX
"""Stands for a number or a range too long to be read. No chunk has this id."""

_NUMBER = r"(?:\^|chunk(?:\s*+:\s*+|\s++))?+\d++"
_DASH = r"[-\u2010-\u2015\u2212]"
_ENTRY = rf"{_NUMBER}(?:\s*+{_DASH}\s*+\^?+\d++)?+"
_LIST = rf"\s*+{_ENTRY}(?:\s*+[,;、，；]\s*+{_ENTRY})*+\s*+[,;]?+\s*+"
_LINK = r"\((?:[^()\\\n]++|\\.|\([^()\n]*+\))*+\)"

# Each alternative begins with a character of its own and stops at the next opening bracket at the latest, so a
# scan takes linear time on any input.
_TOKEN = re.compile(
    rf"""\\[\\`]
    | (?P<ticks>`++)
    | (?P<image>!\[[^\[\]\n]*+\]{_LINK})
    | \[(?P<square>{_LIST})\\?\](?:{_LINK})?+
    | 【(?P<lenticular>{_LIST})】(?:{_LINK})?+
    | ［(?P<wide>{_LIST})］(?:{_LINK})?+
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PART_OF_LINK = r"\((?:[^()\\\n]++|\\.|\([^()\n]*+\))*+(?:\\|\([^()\n]*+)?+"
# At the end of a text that is still being written: what may yet become a token, or a longer one.
_UNFINISHED = re.compile(
    rf"""(?: \\
    | \\?+(?:
        !\[[^\[\]\n]*+ (?:\](?:{_PART_OF_LINK})?+)?+
      | [\[【［](?:[\s\d^:chunk,;、，；]|{_DASH})*+ (?:\\?+[\]】］](?:{_PART_OF_LINK})?+|\\)?+
      )
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_PART = re.compile(rf"(?P<low>\d++)(?:\s*+{_DASH}\s*+\^?+(?P<high>\d++))?+")
_TICKS = re.compile(r"`++")
_LABEL = re.compile(r"\s*+(\[\^([^\]\s]++)\]:)")


@dataclass(frozen=True, slots=True)
class Marker:
    """A place in the text that cites; `start` and `end` count code points and include the link, if it is one."""

    start: int
    end: int
    targets: tuple[int, ...]
    """Refs and chunk ids in the order in which they are named."""


def parse(text: str) -> list[Marker]:
    """All markers of `text` in its order. In time linear in its length."""
    return [atom for block in blocks.split(text) for atom in atoms(text, block) if atom.targets]


def footnotes(text: str) -> list[Marker]:
    """The labels of footnote definitions, ``[^1]: …``, whose label is a number."""
    if "[^" not in text:
        return []  # as most answers: spare them a second look at every line
    labels = (_LABEL.match(text, block.start) for block in blocks.split(text) if block.kind is Kind.FOOTNOTE)
    return [
        Marker(*match.span(1), (_number(match[2]),)) for match in labels if match is not None and match[2].isdecimal()
    ]


def label(text: str) -> int | None:
    """What the label of the footnote that `text` defines names; None if it is not a number."""
    match = _LABEL.match(text)
    return _number(match[2]) if match is not None and match[2].isdecimal() else None


def atoms(text: str, block: Block) -> Iterator[Marker]:
    """The markers of a block, and also what must not be cut in two: inline code and images, with no targets."""
    if block.kind is Kind.CODE:
        return
    label = _LABEL.match(text, block.start) if block.kind is Kind.FOOTNOTE else None
    at = block.start if label is None else label.end()
    code = None
    while (token := _TOKEN.search(text, at, block.end)) is not None:
        at = token.end()
        if token.lastgroup == "ticks":
            code = code or _CodeSpans(text, token.start(), block.end)
            at = code.end(token.end(), len(token["ticks"]))
            if at > token.end():
                yield Marker(token.start(), at, ())
        elif token.lastgroup == "image":
            yield Marker(*token.span(), ())
        elif token.lastgroup is not None and (targets := _targets(token[token.lastgroup])):
            escaped = text[token.start() - 1 : token.start()] == "\\"
            yield Marker(token.start() - escaped, token.end(), targets)


def settled_end(text: str, block: Block) -> int:
    """Up to where the atoms of a block stay what they are when more is written at its end."""
    unfinished = _UNFINISHED.search(text, block.start, block.end)
    end = block.end if unfinished is None else unfinished.start()
    code = None
    at = block.start
    while (token := _TOKEN.search(text, at, block.end)) is not None and token.start() < end:
        at = token.end()
        if token.lastgroup == "ticks":
            code = code or _CodeSpans(text, token.start(), block.end)
            at = code.end(token.end(), len(token["ticks"]))
            if at in (token.end(), block.end):
                return token.start()  # not closed, or closed by what may become a longer run
    return end


class _CodeSpans:
    """Finds where inline code ends: at the next run of just as many backticks."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._ends: defaultdict[int, deque[int]] = defaultdict(deque)
        for run in _TICKS.finditer(text, start, end):
            self._ends[run.end() - run.start()].append(run.end())

    def end(self, after: int, length: int) -> int:
        """The end of the code that `length` backticks before `after` open; `after` if they open none."""
        ends = self._ends[length]
        while ends and ends[0] <= after:
            ends.popleft()
        return ends[0] if ends else after


def _targets(listed: str) -> tuple[int, ...]:
    """What a list in brackets names; nothing if one of its parts shows that it is no citation."""
    targets: list[int] = []
    for part in _PART.finditer(listed):
        low = _number(part["low"])
        members = (low,) if part["high"] is None else _range(low, _number(part["high"]))
        if not members:
            return ()
        targets.extend(members)
    return tuple(targets)


def _range(low: int, high: int) -> tuple[int, ...]:
    if low > high:
        if low > REF_MAX:
            return ()  # [2024-01] is a month
        low, high = high, low
    if low <= REF_MAX < high:
        return (low, high)
    if high - low >= RANGE_MAX:
        return (low, high, UNREADABLE)
    return tuple(range(low, high + 1))


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return UNREADABLE if len(digits) > DIGITS_MAX else int(digits or "0")
