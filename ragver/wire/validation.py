"""Validation: what is cited, and the verdict on it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ragver.types import CitationStatus, Decision, Policy, Scope
from ragver.wire.common import CITATIONS_MAX, Body, ChunkIdText, Principals, Text

AnswerId = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:~-]{0,127}$", examples=["7b1c2c5e"], description="the answer's id"),
]


class CitationInput(Body):
    ref: Annotated[int, Field(ge=0, le=2**53)] | None = None
    chunk_id: ChunkIdText | None = None
    quote: Annotated[Text, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _ref_or_chunk(self) -> CitationInput:
        if (self.ref is None) == (self.chunk_id is None):
            raise PydanticCustomError("invalid_request", "a citation names either `ref` or `chunk_id`")
        return self


class ValidateRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"snapshot": "eyJ2Ij…", "answer": "You have 30 days of leave [1].", "policy": "strict"}]
        }
    )

    snapshot: str
    citations: Annotated[list[CitationInput], Field(max_length=CITATIONS_MAX)] | None = None
    answer: Text | None = Field(None, description="generated text whose markers are citations")
    policy: Policy = Policy.STRICT
    scope: Scope = Scope.CITED
    principals: Principals = Field(default_factory=list)
    record: bool = Field(False, description="keep what the answer rests on (not its text), for recalls")
    answer_id: AnswerId | None = Field(
        None, description="with `record`: under which id; the same for each validation of a growing answer"
    )

    @model_validator(mode="after")
    def _something_to_check(self) -> ValidateRequest:
        if self.answer_id is not None and not self.record:
            raise PydanticCustomError("invalid_request", "`answer_id` goes with `record: true`")
        if self.citations is None and self.answer is None and self.scope is Scope.CITED:
            raise PydanticCustomError("invalid_request", "give `citations`, `answer`, or scope `context`")
        return self


class CitationVerdict(Body):
    ref: int | None
    chunk_id: str | None
    status: CitationStatus
    document_key: str | None
    version: int | None = Field(description="the newest version that holds the chunk")
    died_epoch: int | None
    superseded_by: int | None = Field(description="the document's present version, when it no longer holds the chunk")
    detail: str


class ValidateResponse(Body):
    verdict: Decision
    epoch: int = Field(description="every commit up to this epoch is reflected")
    snapshot_epoch: int
    checked_at: datetime
    valid_for_ms: int = Field(
        description="release within this time, by your monotonic clock, counted from before you asked"
    )
    citations: list[CitationVerdict]
    answer: str | None = Field(None, description="with policy redact: what is left of the answer")
    answer_id: str | None = Field(None, description="with `record`: the id under which the answer is kept")
