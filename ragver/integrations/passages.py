"""What a framework's document carries of the retrieval that it comes from, so that it can be checked later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from ragver import wire
from ragver.client import AsyncCorpus, Corpus

METADATA: Final = "ragver"
"""The metadata field that holds a passage's origin."""


class Origin(BaseModel):
    """Where a passage comes from: enough to cite it, and to validate it."""

    model_config = ConfigDict(frozen=True)

    snapshot: str
    ref: int
    """What a marker like `[1]` cites it by, together with the snapshot."""
    chunk_id: str
    key: str
    version: int
    epoch: int

    @classmethod
    def of(cls, found: wire.RetrieveResponse, hit: wire.Hit) -> Origin:
        return cls(
            snapshot=found.snapshot,
            ref=hit.ref,
            chunk_id=hit.chunk_id,
            key=hit.document.key,
            version=hit.document.version,
            epoch=found.epoch,
        )

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> Origin | None:
        """The origin in some metadata; None if it is not there or not whole."""
        try:
            return cls.model_validate(metadata.get(METADATA))
        except ValidationError:
            return None


def described(found: wire.RetrieveResponse, hit: wire.Hit) -> dict[str, Any]:
    """A document's metadata for a framework: its own, title and source, and the origin under ``METADATA``."""
    named = {"title": hit.document.title, "source": hit.document.uri or hit.document.key}
    given = {name: value for name, value in named.items() if value is not None}
    return given | hit.document.metadata | {METADATA: Origin.of(found, hit).model_dump()}


def blocking(corpus: Corpus | AsyncCorpus) -> Corpus:
    """The corpus, if it can be called synchronously. Raises ``TypeError``."""
    if isinstance(corpus, AsyncCorpus):
        raise TypeError(f"{corpus!r} is asynchronous: call asynchronous methods, or give a corpus of a ragver.Client")
    return corpus
