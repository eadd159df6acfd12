"""Pins, which hold an epoch back from retention, and what a collection has removed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ragver.wire.common import Body, EpochNumber

PIN_TTL_S_MAX = 30 * 86_400
"""A pin that nobody renews must not hold texts for ever."""
SNAPSHOT_CHARACTERS_MAX = 32_768


class PinRequest(Body):
    """An epoch to hold readable, and for how long; longer than `ttl_s` takes another pin, before this one ends."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"epoch": 41, "ttl_s": 3600}]})

    snapshot: Annotated[str, Field(max_length=SNAPSHOT_CHARACTERS_MAX)] | None = None
    epoch: EpochNumber | None = None
    ttl_s: Annotated[int, Field(ge=1, le=PIN_TTL_S_MAX, description="seconds, by the ledger's clock")]

    @model_validator(mode="after")
    def _one_epoch(self) -> PinRequest:
        if (self.snapshot is None) == (self.epoch is None):
            raise PydanticCustomError("invalid_request", "give either `snapshot` or `epoch`")
        return self


class Pin(Body):
    pin_id: str
    epoch: int
    expires_at: datetime


class PinList(Body):
    pins: list[Pin]


class GcStep(Body):
    """One of the steps that give back to the disk what was removed."""

    step: str
    done: bool
    seconds: float = Field(description="how long it took; a table is locked meanwhile")
    detail: str | None = Field(None, description="why it was not done, and who can")


class GcResult(Body):
    """What one collection did to a corpus."""

    corpus: str
    head: int
    horizon_before: int
    horizon: int = Field(description="the oldest epoch that can still be read")
    chunks: int = Field(description="chunks whose points, texts and vectors were removed")
    answers: int = Field(0, description="recorded answers that were removed for their age")
    pins: int = Field(description="pins that hold the horizon now")
    full: list[GcStep] = Field(default_factory=list, description="with `full`: what was rewritten, store by store")
    ledger_bytes_before: int | None = Field(None, description="with `full`: of all tables, indexes included")
    ledger_bytes: int | None = None
