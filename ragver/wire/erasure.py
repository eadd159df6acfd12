"""Erasures and their receipts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from ragver.wire.commits import Actor
from ragver.wire.common import Body, Key, Line

ERASURE_KEYS_MAX = 1_000

ErasureState = Literal["complete", "pending"]
StoreState = Literal["erased", "pending", "not_applicable"]


class ErasureRequest(Body):
    """Documents to remove for good: every version of every document that ever lived under one of these keys."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"keys": ["people/ada.md"], "reason": "request 4711 of the person"}]}
    )

    keys: Annotated[list[Key], Field(min_length=1, max_length=ERASURE_KEYS_MAX)]
    reason: Annotated[Line, Field(min_length=1, max_length=1000, description="stays in the log: name no person")]
    actor: Actor | None = None
    keys_too: bool = Field(False, description="replace the keys themselves, and names that the log kept of them")


class StoreReceipt(Body):
    """What became of one store."""

    store: str
    state: StoreState
    verified_by: list[str] = Field(description="each way in which it was looked whether anything is left")
    detail: str | None = None


class NotCovered(Body):
    """Where bytes can outlive the erasure, and what closes it."""

    what: str
    close_by: str


class ErasureReceipt(Body):
    """Signed with Ed25519 over the canonical JSON of everything but `signature`."""

    id: str
    corpus: str
    ledger_id: str
    epoch: int = Field(description="the commit that the erasure is")
    state: ErasureState
    keys: list[str] = Field(description="as asked for; with `keys_too` their pseudonyms, in the same order")
    keys_too: bool
    documents: int
    versions: int
    chunks: int
    reason: str | None
    actor: str | None
    committed_at: datetime
    completed_at: datetime | None = Field(description="when the last store was verified, by the ledger's clock")
    stores: list[StoreReceipt]
    not_covered: list[NotCovered]
    key_id: str
    public_key: str = Field(description="base64url; compare it with one that you have from elsewhere")
    signature: str = Field(description="base64url")


class ErasureList(Body):
    erasures: list[ErasureReceipt]


class ErasureCheck(Body):
    """What the stores say now of an erasure."""

    id: str
    erased: bool
    stores: list[StoreReceipt]


class ReceiptKey(Body):
    """The key that this ledger's receipts can be checked with."""

    algorithm: Literal["Ed25519"]
    key_id: str
    public_key: str
    ledger_id: str
