"""Readiness and errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ragver.wire.common import Body


class Readiness(Body):
    """Which store can be reached. Not ready unless both can."""

    status: str
    ledger: str
    index: str


class Problem(BaseModel):
    """An error as RFC 9457 describes it. Decide by `code` and `retryable`; show `detail` to people."""

    type: str
    title: str
    status: int
    code: str
    retryable: bool
    detail: str
    errors: list[dict[str, Any]] | None = None
