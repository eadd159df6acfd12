"""Index generations: the embeddings of a corpus, past, present and to come."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from ragver.types import GenerationState
from ragver.wire.common import Body
from ragver.wire.corpora import Embedding


class GenerationCreate(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"embedding": {"provider": "openai", "model": "text-embedding-3-small"}}]}
    )

    embedding: Embedding | None = Field(None, description="none: the serving one's, to build the index anew")


class Generation(Body):
    id: str
    state: GenerationState
    embedding: Embedding
    collection: str = Field(description="the name of its collection in the index")
    head: int = Field(description="the corpus's newest committed epoch")
    applied_epoch: int = Field(description="its collection holds every change up to and including this epoch")
    verified_epoch: int | None = Field(description="at this epoch its collection was found equal to the ledger")
    chunks: int = Field(description="how many chunks it has to hold: those that some readable epoch sees")
    embedded: int = Field(description="how many of these it has a vector of")
    problem: str | None = Field(description="why it does not get on, if it does not")
    created_at: datetime


class GenerationList(Body):
    generations: list[Generation]


class CutOver(Body):
    generation: Generation = Field(description="the one that serves now")
    former: str = Field(description="the id of the one that served before and stands by now")
    epoch: int = Field(description="the head at the cut-over: later commits have vectors of the new one")
    locked_ms: float = Field(description="how long commits had to wait for it")
