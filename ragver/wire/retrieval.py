"""Retrieval: the question, the consistency it wants, the hits."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from ragver.types import REF_MAX, Level
from ragver.wire.common import Body, EpochNumber, Principals, Text, Vector


class Consistency(Body):
    level: Level = Level.STRONG
    epoch: EpochNumber | None = Field(None, description="for `at_least` and `exact`")
    snapshot: str | None = Field(None, description="a snapshot token in place of `epoch`")
    max_lag_epochs: Annotated[int, Field(ge=0)] | None = Field(None, description="for `bounded`")

    @model_validator(mode="after")
    def _fits_level(self) -> Consistency:
        wants_epoch = self.level in (Level.AT_LEAST, Level.EXACT)
        if wants_epoch and (self.epoch is None) == (self.snapshot is None):
            raise PydanticCustomError(
                "invalid_request",
                "level {level} needs either `epoch` or `snapshot`",
                {"level": self.level.value},
            )
        if not wants_epoch and (self.epoch is not None or self.snapshot is not None):
            raise PydanticCustomError(
                "invalid_request", "level {level} takes no `epoch` or `snapshot`", {"level": self.level.value}
            )
        if self.max_lag_epochs is not None and self.level is not Level.BOUNDED:
            raise PydanticCustomError("invalid_request", "`max_lag_epochs` goes with level bounded")
        return self


class RetrieveRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "How many days of leave do I have?", "k": 5, "principals": ["group:staff"]}]
        }
    )

    query: Annotated[Text, Field(min_length=1, max_length=100_000)] | None = None
    vector: Vector | None = None
    k: Annotated[int, Field(ge=1, le=REF_MAX)] = 10
    consistency: Consistency | None = None
    as_of: datetime | None = Field(None, description="read the newest epoch committed by this time")
    filter: dict[str, JsonValue] | None = Field(
        None, examples=[{"all": [{"field": "team", "eq": "hr"}, {"not": {"field": "year", "lt": 2020}}]}]
    )
    principals: Principals = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_question_one_epoch(self) -> RetrieveRequest:
        if (self.query is None) == (self.vector is None):
            raise PydanticCustomError("invalid_request", "give either `query` or `vector`")
        if self.as_of is not None and self.consistency is not None:
            raise PydanticCustomError("invalid_request", "give either `as_of` or `consistency`")
        if self.as_of is not None and self.as_of.tzinfo is None:
            raise PydanticCustomError("invalid_request", "`as_of` needs a time zone, like 2026-01-31T12:00:00Z")
        return self


class HitDocument(Body):
    key: str
    version: int
    title: str | None
    uri: str | None
    metadata: dict[str, Any]


class Hit(Body):
    ref: int = Field(description="1…k; what a marker `[1]` in the generated text points to")
    chunk_id: str
    score: float
    text: str
    document: HitDocument
    born_epoch: int


class RetrieveResponse(Body):
    snapshot: str = Field(description="hand this to validate, or to a later retrieval at the same epoch")
    epoch: int
    head: int
    applied_epoch: int
    tail: int = Field(description="chunk changes beyond the applied epoch that were read from the ledger")
    hits: list[Hit]
