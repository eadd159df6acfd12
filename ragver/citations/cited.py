"""What every format of citations turns into: a text, and where it leans on which source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ragver import wire
from ragver.citations import told
from ragver.citations.cutting import cut
from ragver.errors import InvalidRequest

NOWHERE = 0
"""The target of a citation that points to none of the sources. No hit has this ref, so its status is `unknown`."""

Span = tuple[int, int]
_TRACKING = re.compile(r"[?&]utm_source=[^&]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A hit as it was given to the model."""

    target: int
    """The hit's ref in its snapshot, or its chunk id."""
    id: str | None = None
    """What the model, or its provider, calls it: a document's or a file's id, or a file's name."""
    url: str | None = None
    text: str | None = None
    """As it was given; needed only where a document was put together from several hits."""


Document = Source | Sequence[Source]
"""A document as the model saw it: one hit, or several whose texts follow each other without a gap."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A place in the text that leans on sources."""

    start: int
    end: int
    targets: tuple[int, ...]
    quote: str | None = None
    """What the source is said to say there."""


@dataclass(frozen=True, slots=True)
class Cited:
    """A whole answer with its citations, in the order of their places."""

    text: str
    citations: tuple[Citation, ...]

    def inputs(self, *, quotes: bool = True) -> list[wire.CitationInput]:
        """For the `citations` of a validation: each chunk that is cited, and each quote from it, once."""
        cited = {
            (target, citation.quote if quotes else None): None
            for citation in self.citations
            for target in citation.targets
        }
        return [told.citation(target, quote) for target, quote in cited]

    def without(self, verdict: wire.ValidateResponse) -> str:
        """The text without what leans on a citation that the verdict does not call live; empty if nothing is left.

        Raises ``VerdictIncomplete`` if the verdict says nothing of a citation.
        """
        bad = told.bad([target for citation in self.citations for target in citation.targets], verdict)
        spans = [(it.start, it.end) for it in self.citations if not bad.keys().isdisjoint(it.targets)]
        return cut(self.text, spans, cited=[(it.start, it.end) for it in self.citations])


class Sources:
    """The documents that a model was given, looked up in the ways in which providers name them."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = [(it,) if isinstance(it, Source) else tuple(it) for it in documents]
        self._ids: dict[str, int] = {}
        for source in (source for document in self._documents for source in document):
            for name in filter(None, (source.id, source.url and plain_url(source.url))):
                self._ids.setdefault(name, source.target)

    def at(self, index: int | None) -> tuple[Source, ...]:
        """The parts of the document at this place, counted from 0; none if there is no such document."""
        return self._documents[index] if index is not None and 0 <= index < len(self._documents) else ()

    def numbered(self, number: int) -> int:
        """The target of the document with this number, counted from 1."""
        parts = self.at(number - 1)
        return parts[0].target if len(parts) == 1 else NOWHERE

    def named(self, name: str | None) -> int | None:
        """The target with this id or URL."""
        if not name:
            return None
        return self._ids.get(name, self._ids.get(plain_url(name)))

    def characters(self, index: int | None, start: int | None, end: int | None) -> tuple[int, ...]:
        """The targets of the parts of a document that hold these characters; of all its parts if that is unknown."""
        parts = self.at(index)
        if start is None or end is None or any(part.text is None for part in parts) or len(parts) == 1:
            return _targets(parts)
        held, at = [], 0
        for part in parts:
            until = at + len(part.text or "")
            held += [part] if at < end and start < until else []
            at = until
        return _targets(held)

    def blocks(self, index: int | None, start: int | None, end: int | None) -> tuple[int, ...]:
        """The targets of these parts of a document; of all where its parts are no blocks."""
        parts = self.at(index)
        return _targets(parts[start:end] if len(parts) > 1 else parts)


def _targets(parts: Iterable[Source]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(part.target for part in parts)) or (NOWHERE,)


def plain_url(url: str) -> str:
    """A URL without what providers add or leave out."""
    return _TRACKING.sub("", url.partition("#")[0]).removesuffix("/")


def clamped(text: str, start: int | None, end: int | None) -> Span:
    """A span within the text, at least a character long; the whole text if it is none.

    A place without a length belongs to what stands before it.
    """
    if start is None or end is None or not 0 <= start <= end:
        return 0, len(text)
    end = min(end, len(text))
    start = min(start, max(end - 1, 0))
    return start, end or min(1, len(text))


def strange(what: str, answer: object) -> InvalidRequest:
    """The error for an answer that is not of the format that it is said to be."""
    return InvalidRequest(f"this is no answer of {what}: {type(answer).__name__} without text; pass it on unchanged")
