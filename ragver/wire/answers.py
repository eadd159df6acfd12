"""Recorded answers, and whether one may be served again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from ragver.types import CitationStatus, Decision, Policy, Scope
from ragver.wire.common import Body, Principals
from ragver.wire.validation import AnswerId, CitationVerdict

REVALIDATIONS_MAX = 100
"""Answers that one request may ask about."""


class AnswerCitation(Body):
    ref: int | None
    chunk_id: str | None
    status: CitationStatus = Field(description="as the newest validation that named it found it")
    delivered_epoch: int | None = Field(
        description="of the first verdict on which text that cites this could go out; null if none did"
    )


class Answer(Body):
    """What is kept of an answer: whose text leaned on what, and never the text."""

    answer_id: str
    recorded_at: datetime
    validated_at: datetime
    validations: int
    snapshot_epoch: int
    verdict: Decision = Field(description="the newest; so are epoch, policy and scope")
    epoch: int
    policy: Policy
    scope: Scope
    delivered_epoch: int | None = Field(
        description="of the first verdict of pass or flag, on which text could go out; null if there was none"
    )
    delivered_at: datetime | None
    reader: str = Field(description="tells readers apart by their principals, without naming these")
    citations: list[AnswerCitation]
    hits: list[str] = Field(description="the chunks that the snapshots of its validations hold")


class RevalidateRequest(Body):
    """Who would be served."""

    principals: Principals = Field(default_factory=list)


class RevalidateManyRequest(RevalidateRequest):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["answer-1", "answer-2"], "principals": []}]})

    ids: Annotated[list[AnswerId], Field(min_length=1, max_length=REVALIDATIONS_MAX)]


class Revalidation(Body):
    answer_id: str
    recorded: bool = Field(description="false: nothing is known of such an answer, so it is rejected")
    verdict: Decision
    detail: str
    citations: list[CitationVerdict]


class RevalidateResponse(Revalidation):
    epoch: int = Field(description="every commit up to this epoch is reflected")
    checked_at: datetime
    valid_for_ms: int = Field(description="serve within this time, by your monotonic clock, from before you asked")


class RevalidateManyResponse(Body):
    epoch: int = Field(description="every commit up to this epoch is reflected")
    checked_at: datetime
    valid_for_ms: int = Field(description="serve within this time, by your monotonic clock, from before you asked")
    answers: list[Revalidation] = Field(description="in the order asked for")
