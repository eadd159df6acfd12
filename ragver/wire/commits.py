"""The operations that a commit is made of, commits, and the change feed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ragver.types import WILDCARD, DocumentStatus
from ragver.wire.common import CHUNKS_PER_DOCUMENT_MAX, OPERATIONS_MAX, Acl, Body, Key, Line, Metadata, Text, Vector


class ChunkInput(Body):
    """A piece of text that the client has cut itself, with its vector if it brings one."""

    text: Text
    vector: Vector | None = None


class DocumentInput(Body):
    """A document's whole new state. What is left out is reset: no `acl` is `["*"]`, no `title` is none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "# Leave\n\nEveryone has 30 days of leave.", "title": "Leave"}]}
    )

    text: Text | None = None
    chunks: Annotated[list[ChunkInput], Field(max_length=CHUNKS_PER_DOCUMENT_MAX)] | None = None
    title: Line | None = None
    uri: Line | None = None
    metadata: Metadata = Field(default_factory=dict)
    acl: Acl = Field(default_factory=lambda: [WILDCARD])

    @model_validator(mode="after")
    def _text_or_chunks(self) -> DocumentInput:
        if (self.text is None) == (self.chunks is None):
            raise PydanticCustomError("invalid_request", "give either `text` or `chunks`")
        return self


IfVersion = Annotated[
    int, Field(ge=0, description="apply only if this is the document's version; 0 = only if there is none")
]


class Put(DocumentInput):
    op: Literal["put"]
    key: Key
    if_version: IfVersion | None = None


class Delete(Body):
    op: Literal["delete"]
    key: Key
    if_version: IfVersion | None = None


class Rename(Body):
    op: Literal["rename"]
    key: Key
    new_key: Key


class SetAcl(Body):
    op: Literal["set_acl"]
    key: Key
    acl: Acl


class SetMetadata(Body):
    op: Literal["set_metadata"]
    key: Key
    metadata: Metadata


Operation = Annotated[Put | Delete | Rename | SetAcl | SetMetadata, Field(discriminator="op")]
Reason = Annotated[Line, Field(max_length=1000)]
Actor = Annotated[Line, Field(max_length=255)]
IdempotencyKey = Annotated[Line, Field(min_length=1, max_length=255)]


class CommitRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ops": [
                        {"op": "put", "key": "policies/leave.md", "text": "Everyone has 30 days of leave."},
                        {"op": "delete", "key": "policies/leave-2021.md"},
                    ],
                    "reason": "new leave policy",
                    "actor": "ada",
                }
            ]
        }
    )

    ops: Annotated[list[Operation], Field(max_length=OPERATIONS_MAX)]
    reason: Reason | None = None
    actor: Actor | None = None


class DocumentChange(Body):
    key: str
    version: int
    status: DocumentStatus
    chunks_added: int
    chunks_kept: int
    chunks_removed: int


class CommitResult(Body):
    epoch: int
    committed_at: datetime
    replayed: bool = Field(description="the same request had been applied before; this is its answer")
    fenced: bool = Field(description="no verdict from before this commit can still be acted on")
    documents: list[DocumentChange]


class CommitEntry(Body):
    epoch: int
    committed_at: datetime
    actor: str | None
    reason: str | None
    idempotency_key: str | None
    documents: list[DocumentChange]


class CommitPage(Body):
    commits: list[CommitEntry]
