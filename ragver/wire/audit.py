"""What a walk along the chain of the log has found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ragver.wire.common import Body

Break = Literal["missing", "unlinked", "altered", "redaction_unproven", "truncated", "replaced"]


class Redaction(Body):
    """A row of which an erasure took the content: what is left is proven by the erasure's own commit."""

    epoch: int
    erasure_id: str


class BrokenRow(Body):
    epoch: int = Field(description="the first commit that is not as it was made")
    kind: Break
    detail: str


class LogVerification(Body):
    """`intact`: every commit is there, as it was made, in its place."""

    intact: bool
    head: int
    head_hash: str = Field(description="keep it elsewhere, with the epoch: it proves later that nothing was cut off")
    verified: int = Field(description="commits that were checked and found right")
    redacted: list[Redaction]
    broken: BrokenRow | None
