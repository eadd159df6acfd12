"""The story of a citation: everything that is known of a chunk, a document or an answer, in order."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from ragver.wire.common import Body

Subject = Literal["chunk", "document", "answer"]
Happening = Literal["born", "version", "renamed", "indexed", "retrieved", "validated", "delivered", "died", "erased"]


class StoryEvent(Body):
    epoch: int
    at: datetime | None = Field(description="null where only the epoch is known")
    event: Happening
    detail: str = Field(description="what happened, for people")
    actor: str | None = None
    reason: str | None = None
    chunk_id: str | None = None
    document_key: str | None = None
    version: int | None = None
    answer_id: str | None = None


class Story(Body):
    """In the order of epochs, and of time within one."""

    subject: Subject
    name: str
    state: str = Field(description="how it stands now, for people")
    head: int = Field(description="told as of this epoch")
    events: list[StoryEvent]
    complete: bool = Field(description="false: the oldest versions or mentions in answers were too many to tell")
