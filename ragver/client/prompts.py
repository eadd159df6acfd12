"""What a model is given to write from."""

from __future__ import annotations

from collections.abc import Iterable

from ragver.wire import Hit


def numbered(hits: Iterable[Hit]) -> str:
    """The passages for a prompt, each under the number that a marker like `[1]` cites it by.

    Ask the model to cite so, and ``validate`` finds what its answer leans on.
    """
    return "\n\n".join(f"[{hit.ref}] {hit.document.title or hit.document.key}\n{hit.text.strip()}" for hit in hits)
