"""Citations that a provider sends beside the text, put into it as markers.

Anthropic's Citations come as events of the text block that they support. Without markers the gate would know of none,
and hold every claim to the whole context. The markers are also what a reader of the text can click on.
"""

from __future__ import annotations

from collections.abc import Iterable

from ragver.citations.anthropic import targets_of
from ragver.citations.cited import Document, Sources
from ragver.citations.shapes import each, get
from ragver.gate.chunks import text_of


class Plain:
    """Reads chunks for their text alone."""

    def read(self, chunk: object) -> str:
        """The text that a chunk adds. Raises what ``text_of`` raises."""
        return text_of(chunk)

    def end(self) -> str:
        """What is left at the end of the stream."""
        return ""


class Marking:
    """Reads chunks for their text, and ends each block with markers for what it cites: ``30 days [1][2]``."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._sources = Sources(documents)
        self._cited: dict[int, None] = {}
        self._white = ""
        """At the end of the text so far: a marker goes before it."""

    def read(self, chunk: object) -> str:
        """The text that a chunk adds, and the markers once a block ends. Raises what ``text_of`` raises."""
        match get(chunk, "type"):
            case "content_block_start":
                self._note(each(get(chunk, "content_block"), "citations"))
            case "content_block_delta" if get(get(chunk, "delta"), "type") == "citations_delta":
                self._note([get(get(chunk, "delta"), "citation")])
            case "content_block_stop":
                return self._marked()
        text = self._white + text_of(chunk)
        body = text.rstrip()
        self._white = text[len(body) :]
        return body

    def end(self) -> str:
        """What is left at the end of the stream."""
        return self._marked()

    def _note(self, citations: Iterable[object]) -> None:
        for citation in citations:
            self._cited |= dict.fromkeys(targets_of(citation, self._sources))

    def _marked(self) -> str:
        cited, white = self._cited, self._white
        self._cited, self._white = {}, ""
        return (f" {''.join(f'[{target}]' for target in cited)}" if cited else "") + white
