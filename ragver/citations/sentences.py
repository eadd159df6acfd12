"""An answer as units that can be taken out one by one: sentences, list items, table rows, headings, code.

Where it is not clear whether a sentence ends, it does not: then too much is cut with a bad citation, and never
a claim left standing without the citation that it leaned on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragver.citations import blocks, markers
from ragver.citations.blocks import IDEOGRAPHIC_STOPS, STOPS, Block, Kind
from ragver.citations.markers import Marker

LABEL_WORDS_MAX = 2
"""A unit of a marker and no more words than this before a colon, like ``Source: [1]``, says nothing itself."""
ENTRIES_MIN = 2
"""As many lines that begin with a marker make a list of sources."""

_STOP = re.compile(rf"""[{re.escape(STOPS)}]++["'”’»)\]*_]*+|[{IDEOGRAPHIC_STOPS}]++[」』”’）]*+""")
_GAP = re.compile(r"[ \t]*+[,;]?+[ \t]*+")
_ASIDE = re.compile(r"\([^()]*+\)")
_TRAILING = re.compile(r"[.,;:!?]*+")
_SPACE = re.compile(r"\s*+")
_LINE_START = re.compile(r"^[^\S\n]*+(?=\S)", re.MULTILINE)
_LAST_WORD = re.compile(r"[\w.]+\Z")
_LABEL = re.compile(r"[:：][\s*_(]*+\Z")
_LOOK_BACK = 16
_CONTINUES = ",;:)]}"

_ABBREVIATION = re.compile(
    "al|approx|bzw|ca|cf|co|corp|dept|dr|est|etc|excl|ggf|gov|hr|inc|incl|jr|ltd|max|min|mr|mrs|ms|mt|prof|resp|rev"
    "|sr|st|str|tel|usw|vgl|viz|vs"
)
_BEFORE_NUMBER = re.compile("abs|app|art|bd|ch|cl|eq|figs?|nos?|nr|par|para|pp?|s|sec|tab|vol")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*+")

_QUOTES = '"“”„«»'
_OPENING, _CLOSING = "(（", ")）"


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of the text that stands or falls as a whole, the white space after it included."""

    start: int
    end: int
    kind: Kind
    indent: int
    bare: bool
    """Cites and says nothing, like ``Source: [1]``: it speaks for what stands before it."""
    markers: tuple[Marker, ...]

    @property
    def cites(self) -> bool:
        return bool(self.markers)


def split(text: str) -> list[Unit]:
    """The units of `text` in order; joined, they are the text. In time linear in its length."""
    return of_blocks(text, blocks.split(text))


def of_blocks(text: str, read: Sequence[Block]) -> list[Unit]:
    """The units of the first blocks of `text`."""
    pieces = [piece for block in read for piece in _pieces(text, block)]
    ends = [start for start, _, _ in pieces[1:]] + [read[-1].end if read else 0]
    begins = [0, *ends[:-1]] if pieces else []
    return [
        _unit(text, begin, end, block, inside)
        for begin, end, (_, block, inside) in zip(begins, ends, pieces, strict=bool(pieces))
    ]


def _pieces(text: str, block: Block) -> Iterator[tuple[int, Block, list[Marker]]]:
    """Where the units of a block start, and the markers in each."""
    atoms = list(markers.atoms(text, block))
    first = _skip_space(text, block.start)
    starts = [first]
    if block.kind is Kind.PARAGRAPH:
        starts += _starts(text, block, atoms)
    cited = [atom for atom in atoms if atom.targets]
    at = 0
    for start, end in zip(starts, [*starts[1:], block.end], strict=True):
        inside = []
        while at < len(cited) and cited[at].start < end:
            inside.append(cited[at])
            at += 1
        yield start, block, inside


def _starts(text: str, block: Block, atoms: Sequence[Marker]) -> list[int]:
    """Where the units of a paragraph begin, but the first."""
    sentences = _Sentences(text, block, atoms).starts()
    lines = line_starts(text, block)
    if not _lists_sources(text, block, atoms, lines):
        return sentences
    # The line above a list of sources falls into sentences as it would without the list.
    heads_it = lines[0] not in {atom.start for atom in atoms if atom.targets}
    return [start for start in sentences if heads_it and start < lines[1]] + lines[1:]


def _unit(text: str, start: int, end: int, block: Block, inside: list[Marker]) -> Unit:
    bare = bool(inside) and block.kind is Kind.PARAGRAPH and _is_bare(text, start, end, inside)
    return Unit(start, end, block.kind, block.indent, bare, tuple(inside))


def _is_bare(text: str, start: int, end: int, inside: Sequence[Marker]) -> bool:
    words = _words(text, start, end, inside)
    labelled = words <= LABEL_WORDS_MAX and _LABEL.search(text, start, inside[0].start) is not None
    return words == 0 or labelled


def _words(text: str, start: int, end: int, inside: Sequence[Marker]) -> int:
    """How many words a piece of text has besides its markers."""
    begins = [start, *(marker.end for marker in inside)]
    ends = [*(marker.start for marker in inside), end]
    words = (word for begin, stop in zip(begins, ends, strict=True) for word in text[begin:stop].split())
    return sum(any(map(str.isalnum, word)) for word in words)


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    assert match is not None
    return match.end()


def _lists_sources(text: str, block: Block, atoms: Sequence[Marker], lines: Sequence[int]) -> bool:
    """Whether the paragraph is a list with a line for each source, ``[1] leave.md`` and so on.

    Such a list may have a line of its own above it. One line that begins with a marker is no list: there the
    marker may as well belong to the sentence before it.
    """
    cited = {atom.start for atom in atoms if atom.targets}
    entries = [line for line in lines if line in cited]
    if len(entries) < ENTRIES_MIN or not set(lines[1:]) <= cited:
        return False
    return _words(text, block.start, block.end, [atom for atom in atoms if atom.targets]) > 0


def line_starts(text: str, block: Block) -> list[int]:
    """Where the lines of a block begin, without their indent; blank lines are none."""
    return [match.end() for match in _LINE_START.finditer(text, block.start, block.end)]


class _Sentences:
    """Finds where the sentences of one paragraph begin."""

    def __init__(self, text: str, block: Block, atoms: Sequence[Marker]) -> None:
        self.text = text
        self.start, self.end = block.start, block.end
        self.atoms = atoms
        self.marker_end = {atom.start: atom.end for atom in atoms if atom.targets}

    def starts(self) -> list[int]:
        """The starts of all sentences but the first."""
        starts: list[int] = []
        balance = _Balance(self.text, self.start)
        tail = self.start
        for stop in self._stops():
            if stop.start() < tail:
                continue  # a stop within what was taken along with the stop before
            tail = self._tail(stop.end())
            start = _skip_space(self.text, tail)
            if start >= self.end:
                break
            if balance.even_at(tail) and self._is_end(stop, tail, start):
                starts.append(start)
                balance = _Balance(self.text, start)
        return starts

    def _stops(self) -> Iterator[re.Match[str]]:
        """The full stops and the like that stand outside of code, links and images."""
        number = 0
        for stop in _STOP.finditer(self.text, self.start, self.end):
            while number < len(self.atoms) and self.atoms[number].end <= stop.start():
                number += 1
            if number == len(self.atoms) or stop.start() < self.atoms[number].start:
                yield stop

    def _tail(self, at: int) -> int:
        """The end of a sentence with the markers that follow its full stop: ``… leave. [1] (see [2])``."""
        while True:
            gap = _GAP.match(self.text, at, self.end)
            assert gap is not None
            end = self.marker_end.get(gap.end()) or self._aside_end(gap.end())
            if end is None:
                return at
            trailing = _TRAILING.match(self.text, end, self.end)
            assert trailing is not None
            at = trailing.end()

    def _aside_end(self, at: int) -> int | None:
        aside = _ASIDE.match(self.text, at, self.end)
        if aside is None or not any(marker in self.marker_end for marker in range(at, aside.end())):
            return None
        return aside.end()

    def _is_end(self, stop: re.Match[str], tail: int, start: int) -> bool:
        following = self.text[start]
        if following.islower() or following in _CONTINUES or _is_mark(following):
            return False
        if start in self.marker_end and start > tail:
            return False  # a marker on the next line: whose it is cannot be known
        if stop[0][0] in IDEOGRAPHIC_STOPS:
            return True
        return start > tail and not (stop[0] == "." and self._abbreviates(stop.start(), following))

    def _abbreviates(self, at: int, following: str) -> bool:
        before = _LAST_WORD.search(self.text[max(self.start, at - _LOOK_BACK) : at])
        word = before[0].lower() if before else ""
        if following.isdecimal() and _BEFORE_NUMBER.fullmatch(word):
            return True
        return bool(_ABBREVIATION.fullmatch(word) or _INITIALS.fullmatch(word))


class _Balance:
    """Whether brackets, quotation marks and bold type that were opened since a place are closed again."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start
        self._depth = self._quotes = self._bold = 0

    def even_at(self, end: int) -> bool:
        """To be asked at ascending places only: what lies between two is counted once."""
        piece = self._text[self._at : end]
        self._at = end
        self._depth += _count(piece, _OPENING) - _count(piece, _CLOSING)
        self._quotes += _count(piece, _QUOTES)
        self._bold += piece.count("**")
        return self._depth <= 0 and self._quotes % 2 == 0 and self._bold % 2 == 0


def _is_mark(character: str) -> bool:
    """Whether it is written onto the character before it, as accents and variation selectors are."""
    return unicodedata.category(character).startswith("M")


def _count(text: str, characters: str) -> int:
    return sum(map(text.count, characters))
