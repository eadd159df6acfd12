"""API keys: what they may do, and the one answer that holds the secret."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ragver.types import Role
from ragver.wire.common import LABELS_MAX, Body, CorpusName, Label, Line

KEY_CORPORA_MAX = 1_000
KEY_RATE_PER_S_MAX = 100_000.0


def _sorted_names(names: list[str] | None) -> list[str] | None:
    return None if names is None else sorted(set(names))


KeyName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", examples=["chat-app"], description="what the log calls it"),
]
KeyCorpora = Annotated[
    list[CorpusName] | None,
    Field(min_length=1, max_length=KEY_CORPORA_MAX, description="the only corpora it may touch; null = all"),
    AfterValidator(_sorted_names),
]
KeyPrincipals = Annotated[
    list[Label] | None,
    Field(
        max_length=LABELS_MAX,
        description="the labels that every read with it has, whatever the request says; null = the request says",
    ),
    AfterValidator(_sorted_names),
]
KeyRate = Annotated[
    float | None,
    Field(gt=0, le=KEY_RATE_PER_S_MAX, description="requests a second in each server process; null = no limit"),
]


class KeyCreate(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "chat-app", "role": "reader", "corpora": ["handbook"]}]}
    )

    name: KeyName
    role: Role
    corpora: KeyCorpora = None
    principals: KeyPrincipals = None
    rate_per_s: KeyRate = None
    expires_at: datetime | None = Field(None, description="null = never")
    comment: Annotated[Line, Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> KeyCreate:
        if self.principals is not None and self.role is not Role.READER:
            raise PydanticCustomError(
                "invalid_request",
                "`principals` go with role reader: a writer could change the access lists that keep it out",
            )
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise PydanticCustomError("invalid_request", "`expires_at` needs a time zone, like 2026-01-31T12:00:00Z")
        return self


class ApiKey(Body):
    """A key as everybody may see it: without its secret, of which only a hash is kept."""

    id: str
    name: str
    role: Role
    corpora: list[str] | None
    principals: list[str] | None
    rate_per_s: float | None
    comment: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute; null = never")


class KeyCreated(ApiKey):
    secret: str = Field(repr=False, description="send it as `Authorization: Bearer …`; it is shown this once")


class KeyList(Body):
    keys: list[ApiKey]
