"""OpenAI's annotations: of files and of URLs, in responses, chat completions and the messages of threads.

An annotation has a span, which is that of the link or the marker in the text; or, for files in responses, a place,
which belongs to what stands before it. Places count code points.
"""

from __future__ import annotations

from collections.abc import Iterator

from ragver.citations.cited import NOWHERE, Citation, Cited, Sources, clamped, strange
from ragver.citations.shapes import each, get, number

CITES = {"file_citation", "url_citation", "container_file_citation"}
"""``file_path`` is no citation: it says what a tool wrote."""


def parse(answer: object, sources: Sources) -> Cited:
    """A response, a chat completion, or a thread's message. Raises ``InvalidRequest`` for anything else."""
    parts = list(_parts(answer))
    if not parts:
        raise strange("OpenAI's", answer)
    text, citations = "", []
    for piece, notes in parts:
        for annotation in notes:
            if get(annotation, "type") in CITES:
                start, end = _span(annotation, piece)
                citations.append(Citation(len(text) + start, len(text) + end, (_target(annotation, sources),)))
        text += piece
    return Cited(text, tuple(sorted(citations, key=lambda it: (it.start, it.end))))


def _parts(answer: object) -> Iterator[tuple[str, list[object]]]:
    """Each piece of text with its annotations."""
    for item in each(answer, "output"):
        for part in each(item, "content") if get(item, "type") == "message" else ():
            if get(part, "type") == "output_text":
                yield get(part, "text"), list(each(part, "annotations"))
    for choice in list(each(answer, "choices"))[:1]:
        message = get(choice, "message")
        yield get(message, "content") or "", list(each(message, "annotations"))
    content = get(answer, "content")
    for part in content if isinstance(content, list) else ():
        if get(part, "type") == "text":
            yield get(get(part, "text"), "value"), list(each(get(part, "text"), "annotations"))


def _span(annotation: object, piece: str) -> tuple[int, int]:
    inner = get(annotation, "url_citation") or annotation
    index = number(inner, "index")
    start, end = number(inner, "start_index"), number(inner, "end_index")
    return clamped(piece, start if start is not None else index, end if end is not None else index)


def _target(annotation: object, sources: Sources) -> int:
    inner = get(annotation, str(get(annotation, "type"))) or annotation
    for name in ("file_id", "filename", "url"):
        target = sources.named(get(inner, name))
        if target is not None:
            return target
    return NOWHERE
