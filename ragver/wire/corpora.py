"""Corpora and their embeddings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragver.types import Distance, FieldType
from ragver.wire.common import DIMENSIONS_MAX, RETENTION_S_MIN, VERDICT_TTL_MS_MAX, Body, CorpusName, FieldName


class Embedding(Body):
    """How text becomes vectors. `external`: clients bring every vector themselves."""

    provider: Literal["hashing", "openai", "fastembed", "external"]
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    dimensions: Annotated[int, Field(ge=1, le=DIMENSIONS_MAX)] | None = None
    distance: Distance = Distance.COSINE


class CorpusCreate(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "handbook", "filterable": {"team": "keyword"}}]})

    name: CorpusName
    embedding: Embedding | None = None
    retention_s: Annotated[int, Field(ge=RETENTION_S_MIN, le=10**10)] | None = Field(
        None, description="how long older epochs stay readable; null = for ever"
    )
    verdict_ttl_ms: Annotated[int, Field(ge=1, le=VERDICT_TTL_MS_MAX)] = Field(
        2_000, description="how long a verdict may be acted on; a fenced delete waits this long"
    )
    filterable: Annotated[dict[FieldName, FieldType], Field(max_length=64)] = Field(
        default_factory=dict, description="metadata fields that filters may name, with their types"
    )


class Corpus(Body):
    name: str
    head: int = Field(description="the newest committed epoch")
    applied_epoch: int = Field(description="the index holds every change up to and including this epoch")
    horizon: int = Field(description="the oldest epoch that can still be read")
    documents: int
    chunks: int
    embedding: Embedding
    filterable: dict[str, FieldType]
    retention_s: int | None
    verdict_ttl_ms: int
    created_at: datetime


class CorpusList(Body):
    corpora: list[Corpus]
