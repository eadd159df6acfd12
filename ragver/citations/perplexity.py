"""Numbered sources beside the answer, as Perplexity and others have them: ``[1]`` is the first of `search_results`,
or of the URLs in `citations`, and which of our sources that is, its URL says."""

from __future__ import annotations

from ragver.citations import markers
from ragver.citations.cited import NOWHERE, Citation, Cited, Sources, strange
from ragver.citations.shapes import each, get


def parse(answer: object, sources: Sources) -> Cited:
    """A chat completion. Raises ``InvalidRequest`` for anything else."""
    choices = list(each(answer, "choices"))
    text = get(get(choices[0], "message"), "content") if choices else None
    if not isinstance(text, str):
        raise strange("Perplexity's", answer)
    listed = list(each(answer, "search_results")) or list(each(answer, "citations"))
    urls = [entry if isinstance(entry, str) else get(entry, "url") for entry in listed]
    found = [NOWHERE if (target := sources.named(url)) is None else target for url in urls]
    return Cited(
        text,
        tuple(
            Citation(marker.start, marker.end, tuple(_listed(number, found) for number in marker.targets))
            for marker in markers.parse(text)
        ),
    )


def _listed(number: int, found: list[int]) -> int:
    return found[number - 1] if 1 <= number <= len(found) else NOWHERE
