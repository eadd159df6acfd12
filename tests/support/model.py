"""A corpus as a replay of its commits in plain dictionaries: what every answer is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from ragver import wire


@dataclass(eq=False)
class Chunk:
    """A text from its birth to its death."""

    document: Document
    text: str
    born: int
    died: int | None = None

    def alive_at(self, epoch: int) -> bool:
        return self.born <= epoch and (self.died is None or self.died > epoch)


@dataclass(frozen=True)
class Face:
    """How a document shows itself from one epoch on."""

    key: str
    title: str | None
    metadata: Mapping[str, Any]
    texts: tuple[str, ...]


@dataclass(eq=False)
class Document:
    """A document under all the keys it ever had."""

    version: int = 0
    acl: Sequence[str] = ()
    """Today's; for a dead document the last."""
    face: Face | None = None
    """None while it is dead."""
    last_key: str = ""
    faces: dict[int, Face | None] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)

    def face_at(self, epoch: int) -> Face | None:
        known = [since for since in self.faces if since <= epoch]
        return self.faces[max(known)] if known else None


class Model:
    """Applies commits of which no two operations touch the same key."""

    def __init__(self) -> None:
        self.head = 0
        self.documents: list[Document] = []
        self._newest_versions: dict[str, int] = {}

    def living(self) -> list[str]:
        """The keys in use, in order."""
        return sorted(document.face.key for document in self.documents if document.face is not None)

    def commit(self, operations: Iterable[wire.Operation]) -> int:
        """Apply the operations as the next epoch, which is answered."""
        self.head += 1
        for operation in operations:
            self._apply(operation)
        return self.head

    def _apply(self, operation: wire.Operation) -> None:
        document = self._under(operation.key)
        face = document.face
        match operation:
            case wire.Put():
                texts = tuple(chunk.text for chunk in operation.chunks or ())
                self._show(document, Face(operation.key, operation.title, operation.metadata, texts), operation.acl)
            case wire.Delete():
                self._bury(document)
            case wire.Rename():
                assert face is not None
                self._show(document, replace(face, key=operation.new_key), document.acl)
            case wire.SetAcl():
                assert face is not None
                self._show(document, face, operation.acl)
            case wire.SetMetadata():
                assert face is not None
                self._show(document, replace(face, metadata=operation.metadata), document.acl)
            case _:
                assert_never(operation)

    def _under(self, key: str) -> Document:
        """The document that lives under a key, or was the last to do so; a new one if there was none."""
        bearers = [document for document in self.documents if document.last_key == key]
        if not bearers:
            self.documents.append(Document(last_key=key))
            return self.documents[-1]
        return max(bearers, key=lambda document: (document.face is not None, document.version))

    def _show(self, document: Document, face: Face, acl: Sequence[str]) -> None:
        if (document.face, document.acl) == (face, acl):
            return
        for chunk in document.chunks:
            if chunk.died is None and chunk.text not in face.texts:
                chunk.died = self.head
        kept = {chunk.text for chunk in document.chunks if chunk.died is None}
        document.chunks += [Chunk(document, text, self.head) for text in face.texts if text not in kept]
        document.version = 1 + max(document.version, self._newest_versions.get(face.key, 0))
        self._newest_versions[face.key] = document.version
        document.face, document.acl, document.last_key = face, acl, face.key
        document.faces[self.head] = face

    def _bury(self, document: Document) -> None:
        for chunk in document.chunks:
            chunk.died = chunk.died or self.head
        document.face = document.faces[self.head] = None

    def visible(self, epoch: int, wanted: str | None) -> list[Chunk]:
        """What is alive at an epoch, of documents whose team was `wanted` then, if that is asked for."""
        return [
            chunk
            for document in self.documents
            for chunk in document.chunks
            if chunk.alive_at(epoch) and wanted in (None, self.shown(chunk, epoch).metadata.get("team"))
        ]

    @staticmethod
    def shown(chunk: Chunk, epoch: int) -> Face:
        """The document of a chunk that is alive at an epoch, as it was then."""
        face = chunk.document.face_at(epoch)
        assert face is not None
        return face

    def readable(self, principals: Sequence[str]) -> set[Chunk]:
        """The chunks, dead or alive, whose document's list has one of these labels today."""
        labels = {"*", *principals}
        return {chunk for document in self.documents if labels.intersection(document.acl) for chunk in document.chunks}

    def status(self, chunk: Chunk, principals: Sequence[str]) -> str:
        """What a verdict has to say of a chunk that was a hit."""
        if not {"*", *principals}.intersection(chunk.document.acl):
            return "forbidden"
        if chunk.died is None:
            return "live"
        return "deleted" if chunk.document.face is None else "superseded"
