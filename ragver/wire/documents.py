"""Documents, at an epoch and through their versions."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ragver.types import Cause
from ragver.wire.common import Body


class Chunk(Body):
    chunk_id: str
    text: str


class Document(Body):
    key: str
    version: int
    born_epoch: int = Field(description="the epoch that brought this version")
    died_epoch: int | None = Field(description="the epoch that ended this version")
    title: str | None
    uri: str | None
    metadata: dict[str, Any]
    acl: list[str]
    text: str
    chunks: list[Chunk]


class DocumentSummary(Body):
    key: str
    version: int
    title: str | None
    uri: str | None
    born_epoch: int


class DocumentPage(Body):
    documents: list[DocumentSummary]
    next_cursor: str | None


class DocumentVersion(Body):
    version: int
    key: str
    born_epoch: int
    died_epoch: int | None
    cause: Cause | None
    title: str | None
    uri: str | None
    metadata: dict[str, Any]
    acl: list[str]
    chunks: int


class DocumentVersions(Body):
    versions: list[DocumentVersion]
