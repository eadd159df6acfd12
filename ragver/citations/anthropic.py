"""Anthropic's Citations: an answer is a list of text blocks, each with the citations that support it.

Documents and search results are counted from 0, each kind for itself, in the order of the request. A text block is
what its citations support, whole.
"""

from __future__ import annotations

from ragver.citations.cited import NOWHERE, Citation, Cited, Sources, strange
from ragver.citations.shapes import each, get, number


def parse(answer: object, sources: Sources) -> Cited:
    """A message, or its content. Raises ``InvalidRequest`` for what is neither.

    Where a request has documents and search results, `sources` are those of the kind that is cited. What a web
    search brought is looked up by its URL.
    """
    blocks = answer if isinstance(answer, list) else get(answer, "content")
    if not isinstance(blocks, list):
        raise strange("Anthropic's", answer)
    text, citations = "", []
    for block in blocks:
        if get(block, "type") != "text":
            continue
        start = len(text)
        text += get(block, "text")
        citations += [_citation(told, start, len(text), sources) for told in each(block, "citations")]
    return Cited(text, tuple(citations))


def _citation(told: object, start: int, end: int, sources: Sources) -> Citation:
    targets = targets_of(told, sources)
    quote = get(told, "cited_text")
    known = len(targets) == 1 and targets != (NOWHERE,)
    return Citation(start, end, targets, quote if known and isinstance(quote, str) and quote.strip() else None)


def targets_of(told: object, sources: Sources) -> tuple[int, ...]:
    """What one citation points to."""
    match get(told, "type"):
        case "char_location":
            place = number(told, "start_char_index"), number(told, "end_char_index")
            return sources.characters(number(told, "document_index"), *place)
        case "page_location":
            # Which hits stand on a page is not known here.
            return sources.characters(number(told, "document_index"), None, None)
        case "content_block_location":
            place = number(told, "start_block_index"), number(told, "end_block_index")
            return sources.blocks(number(told, "document_index"), *place)
        case "search_result_location":
            place = number(told, "start_block_index"), number(told, "end_block_index")
            return sources.blocks(number(told, "search_result_index"), *place)
        case _:
            target = sources.named(get(told, "url"))
            return (NOWHERE if target is None else target,)
