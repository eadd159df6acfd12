"""Webhooks: recalls told to a URL."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragver.types import Scope
from ragver.wire.common import Body, EpochNumber, Line
from ragver.wire.recalls import Recall

REDELIVERIES_MAX = 1_000


class WebhookCreate(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"url": "https://example.org/recalls"}]})

    url: Annotated[Line, Field(min_length=1, max_length=2_000)]
    secret: Annotated[Line, Field(max_length=200)] | None = Field(None, description="`whsec_…`; made if not given")
    scope: Scope = Scope.CITED
    since_epoch: EpochNumber | None = Field(None, description="tell what commits after this one recall; not given: now")


class Webhook(Body):
    webhook_id: str
    url: str
    scope: Scope
    created_at: datetime
    state: Literal["active", "retrying", "disabled"] = Field(
        description="disabled: the receiver answered 410; delete it, and make another one from its cursor's epoch"
    )
    cursor: str = Field(description="up to here everything has been delivered or become a dead letter")
    attempts: int = Field(description="that have failed for the next event")
    next_attempt_at: datetime
    last_error: str | None
    delivered_at: datetime | None
    dead_letters: int


class WebhookCreated(Webhook):
    secret: str = Field(description="what the signatures are checked with; it is shown this once")


class WebhookList(Body):
    webhooks: list[Webhook]


class WebhookEvent(Body):
    """What is sent, with the headers of Standard Webhooks."""

    type: Literal["answer.recalled"] = "answer.recalled"
    timestamp: datetime = Field(description="of the commit that recalled the answer")
    corpus: str
    data: Recall


class DeadLetter(Body):
    recall_id: str
    attempts: int
    error: str
    failed_at: datetime
    due: bool = Field(description="it is going to be delivered again")


class DeadLetterPage(Body):
    dead_letters: list[DeadLetter]
    next_cursor: str | None


class RedeliverRequest(Body):
    recall_ids: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=REDELIVERIES_MAX)] | None = (
        Field(None, description="not given: all dead letters of the webhook")
    )


class Redelivery(Body):
    due: int = Field(description="dead letters that are going to be delivered again")
