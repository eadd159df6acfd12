"""Cuts a document's text into chunks, and finds its title.

Nothing is lost: the chunks of a text, one after the other, are the text. So the ledger stores a version's text
once, as its chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from semantic_text_splitter import MarkdownSplitter

CHUNK_CHARS_MIN = 400
"""Neighbouring pieces are joined until a chunk has this many characters …"""
CHUNK_CHARS_MAX = 800
"""… and no chunk has more than these."""

SECTION_CHARS_MAX = 32_768
"""The splitter's time grows with the square of a text's length, so a longer text goes to it in sections."""
UNBROKEN_CHARS_MAX = 8_192
"""The section's length where the text has no line to end it at: there the square bites much sooner."""

TITLE_CHARS_MAX = 200
FRONT_MATTER_CHARS_MAX = 10_000

_BREAKS = ("\n#", "\n\n", "\n")

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_FRONT_MATTER_TITLE = re.compile(r"^title[ \t]*:[ \t]*(\S.*)$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(.*)")
_ATX_CLOSING = re.compile(r"(?:^|[ \t]+)#+$")
_SETEXT = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
_NOT_A_PARAGRAPH = re.compile(r" {0,3}(?:[-+*>|]|\d{1,9}[.)] )| {4}|\t")

_splitter = MarkdownSplitter((CHUNK_CHARS_MIN, CHUNK_CHARS_MAX), trim=False)


def split(text: str) -> list[str]:
    """The text in chunks of at most ``CHUNK_CHARS_MAX`` characters, cut where its Markdown structure allows.

    ``"".join(split(text)) == text``, and no chunk is empty; the empty text has none.
    """
    return [chunk for section in _sections(text) for chunk in _split_section(section)]


def _split_section(section: str) -> list[str]:
    chunks = [chunk for chunk in _splitter.chunks(section) if chunk]
    # Losing text is never worth a nicer cut, whatever a later version of the library does.
    return chunks if "".join(chunks) == section else _windows(section)


def _windows(text: str) -> list[str]:
    return [text[start : start + CHUNK_CHARS_MAX] for start in range(0, len(text), CHUNK_CHARS_MAX)]


def _sections(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > SECTION_CHARS_MAX:
        end = _section_end(text, start)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _section_end(text: str, start: int) -> int:
    """Where to cut: at the last heading in the second half of a section, else at a blank line, else at a line."""
    middle, last = start + SECTION_CHARS_MAX // 2, start + SECTION_CHARS_MAX
    for mark in _BREAKS:
        found = text.rfind(mark, middle, last)
        if found >= 0:
            return found + mark.count("\n")
    return start + UNBROKEN_CHARS_MAX


def title_of(text: str) -> str | None:
    """What a Markdown text calls itself: the ``title`` of its front matter, else its first heading, else None."""
    body = text.removeprefix("\ufeff")
    front_matter = _FRONT_MATTER.match(body, 0, FRONT_MATTER_CHARS_MAX)
    if front_matter is None:
        return _first_heading(body)
    named = _FRONT_MATTER_TITLE.search(front_matter[1])
    title = _tidy(_unquoted(named[1].strip())) if named else None
    return title or _first_heading(body[front_matter.end() :])


def _first_heading(body: str) -> str | None:
    fence = ""
    paragraph: list[str] = []
    for line in map(str.rstrip, body.split("\n")):
        if marker := _FENCE.match(line):
            fence = _fence_after(fence, marker[1], line)
            paragraph.clear()
        elif not fence:
            if title := _heading(line, paragraph):
                return title
            _extend(paragraph, line)
    return None


def _heading(line: str, paragraph: list[str]) -> str | None:
    """The heading that this line is, or that its underlining makes of the paragraph above it."""
    if atx := _ATX.fullmatch(line):
        return _tidy(_ATX_CLOSING.sub("", atx[1]))
    if paragraph and _SETEXT.fullmatch(line):
        return _tidy(" ".join(paragraph))
    return None


def _extend(paragraph: list[str], line: str) -> None:
    if not line or _NOT_A_PARAGRAPH.match(line):
        paragraph.clear()
    else:
        paragraph.append(line)


def _fence_after(fence: str, marker: str, line: str) -> str:
    """The code fence that is open after a line with a fence's marker; empty when none is."""
    if not fence:
        return marker
    closes = marker.startswith(fence) and line.strip() == marker
    return "" if closes else fence


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _tidy(title: str) -> str | None:
    """On one line, without control characters, so that it can be a document's title; None when nothing is left."""
    printable = "".join(character if character.isprintable() else " " for character in title)
    return " ".join(printable.split())[:TITLE_CHARS_MAX].rstrip() or None
