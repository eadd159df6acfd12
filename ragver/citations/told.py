"""From what a text cites to a request, and back from a verdict to what it says of each."""

from __future__ import annotations

from collections.abc import Iterable

from ragver import wire
from ragver.citations.markers import DIGITS_MAX, UNREADABLE
from ragver.errors import VerdictIncomplete
from ragver.types import REF_MAX, CitationStatus

_BEYOND_ALL_IDS = "9" * DIGITS_MAX
"""No chunk has this id. It stands for a marker that cannot be read."""


def citation(target: int, quote: str | None = None) -> wire.CitationInput:
    """How to ask about a target: a ref up to `REF_MAX`, a chunk id beyond."""
    if target <= REF_MAX:
        return wire.CitationInput(ref=target, quote=quote)
    return wire.CitationInput(chunk_id=_BEYOND_ALL_IDS if target == UNREADABLE else str(target), quote=quote)


def by_target(targets: Iterable[int], verdict: wire.ValidateResponse) -> dict[int, wire.CitationVerdict]:
    """What the verdict says of each target; the worse, where it is cited with several quotes.

    Raises ``VerdictIncomplete`` for a target that it says nothing of.
    """
    refs: dict[int | None, wire.CitationVerdict] = {}
    chunks: dict[str | None, wire.CitationVerdict] = {}
    for entry in verdict.citations:
        for index, name in ((refs, entry.ref), (chunks, entry.chunk_id)):
            if name not in index or index[name].status is CitationStatus.LIVE:  # type: ignore[index]
                index[name] = entry  # type: ignore[index]
    found = {}
    for target in targets:
        asked = citation(target)
        entry_or_none = chunks.get(asked.chunk_id) if asked.ref is None else refs.get(asked.ref)
        if entry_or_none is None:
            raise VerdictIncomplete(f"the verdict says nothing of citation [{target}]; nothing more can rest on it")
        found[target] = entry_or_none
    return found


def bad(targets: Iterable[int], verdict: wire.ValidateResponse) -> dict[int, wire.CitationVerdict]:
    """The targets that are not live."""
    return {
        target: entry
        for target, entry in by_target(targets, verdict).items()
        if entry.status is not CitationStatus.LIVE
    }
