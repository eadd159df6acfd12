"""Reading generated text: where it cites, what it quotes, and which of its sentences lean on a citation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

from ragver.citations import anthropic, chunk_ids, cohere, footnotes, numbered, openai, perplexity
from ragver.citations.cited import NOWHERE, Citation, Cited, Document, Source, Sources

__all__ = ["NOWHERE", "Citation", "Cited", "Document", "Format", "Source", "parse"]


class Format(StrEnum):
    """How an answer cites."""

    NUMBERED = "numbered"
    FOOTNOTES = "footnotes"
    CHUNK_IDS = "chunk_ids"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    COHERE = "cohere"
    PERPLEXITY = "perplexity"


_PARSERS: dict[Format, Callable[[Any, Sources], Cited]] = {
    Format.NUMBERED: numbered.parse,
    Format.FOOTNOTES: footnotes.parse,
    Format.CHUNK_IDS: chunk_ids.parse,
    Format.ANTHROPIC: anthropic.parse,
    Format.OPENAI: openai.parse,
    Format.COHERE: cohere.parse,
    Format.PERPLEXITY: perplexity.parse,
}


def parse(format: Format | str, answer: Any, documents: Iterable[Document]) -> Cited:
    """The text of an answer and what it cites, whatever the format.

    - `answer` is a string for the first three formats, and else what the provider's SDK returned, or its JSON.
    - `documents` are what the model was given, in that order, each with the ref or the chunk id of its hit.

    A citation of anything else has the target `NOWHERE`, which no validator calls live. Raises ``InvalidRequest`` when
    the answer is not of the format.
    """
    return _PARSERS[Format(format)](answer, Sources(documents))
