"""Cohere's citations: spans of the reply, each with the ids of the documents that it rests on.

Documents without ids of their own are called ``doc:0``, ``doc_1`` and so on, by their place in the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragver.citations.cited import NOWHERE, Citation, Cited, Sources, clamped, strange
from ragver.citations.shapes import each, get, number

_BY_PLACE = re.compile(r"doc(?:ument)?[-_:](\d{1,6})(?::\d+)?")
_IN_TEXT = {None, "TEXT_CONTENT"}
"""Kinds of citations that are about the reply; others are about the model's plan or thoughts."""


def parse(answer: object, sources: Sources) -> Cited:
    """A chat response of the API's version 2 or 1. Raises ``InvalidRequest`` for anything else."""
    message = get(answer, "message")
    pieces = _pieces(answer, message)
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    citations = []
    for told in each(message or answer, "citations"):
        if get(told, "type") in _IN_TEXT:
            index = min(number(told, "content_index") or 0, len(pieces) - 1)
            start, end = _span(told, pieces[index])
            citations.append(Citation(starts[index] + start, starts[index] + end, tuple(_targets(told, sources))))
    return Cited("".join(pieces), tuple(sorted(citations, key=lambda it: (it.start, it.end))))


def _pieces(answer: object, message: object) -> list[str]:
    text = get(answer, "text")
    if message is None and isinstance(text, str):
        return [text]
    content = list(each(message, "content"))
    if message is None or not content:
        raise strange("Cohere's", answer)
    return [get(part, "text") or "" if get(part, "type") == "text" else "" for part in content]


def _span(told: object, piece: str) -> tuple[int, int]:
    start, end = clamped(piece, number(told, "start"), number(told, "end"))
    said = get(told, "text")
    if not said or piece[start:end] == said:
        return start, end
    # Places that are counted otherwise: the text itself tells where it stands.
    at = piece.find(said)
    return (at, at + len(said)) if at >= 0 else (0, len(piece))


def _targets(told: object, sources: Sources) -> Iterator[int]:
    names = [get(source, "id") or get(get(source, "document"), "id") for source in each(told, "sources")]
    for name in (*names, *each(told, "document_ids")) or (None,):
        target = sources.named(name)
        place = _BY_PLACE.fullmatch(name or "")
        if target is None and place is not None:
            target = sources.numbered(int(place[1]) + 1)
        yield NOWHERE if target is None else target
