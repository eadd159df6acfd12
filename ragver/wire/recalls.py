"""Recalls: delivered answers that rest on what has died since."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ragver.types import RecallCause
from ragver.wire.common import Body


class RecalledChunk(Body):
    chunk_id: str
    ref: int | None
    cited: bool = Field(description="false: the delivered text does not cite it, but it was among the hits")
    cause: RecallCause
    document_key: str
    version: int = Field(description="the document's last version before the commit")
    superseded_by: int | None = Field(description="the document's present version, where the chunk was superseded")


class Recall(Body):
    """What one commit took from one answer."""

    recall_id: str = Field(description="the same whenever and however often this recall is told")
    answer_id: str
    delivered_epoch: int
    delivered_at: datetime
    epoch: int = Field(description="of the commit; its time, actor and reason beside it")
    committed_at: datetime
    actor: str | None
    reason: str | None
    chunks: list[RecalledChunk]


class RecallPage(Body):
    recalls: list[Recall] = Field(description="by epoch and, within one, in the order in which answers were recorded")
    next_cursor: str = Field(description="where to go on, now or when there are more")
    more: bool = Field(description="there may be more right now")
    head: int = Field(description="without `more`, everything up to this epoch has been told")
