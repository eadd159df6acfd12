"""What a list of operations does to documents. Pure: state in, plan out.

The operations of a commit are applied one after the other to the documents as they were, and only the state
after the last one becomes visible. So a plan holds, for each document, the difference between its first and
its last state: at most one new version, the chunks that are born, the chunks that die and why.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
import xxhash
from numpy.typing import NDArray

from ragver import wire
from ragver.errors import DocumentExists, DocumentNotFound, VersionConflict
from ragver.filters import projection
from ragver.types import Cause, ChunkId, DocumentId, DocumentStatus, FieldType


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk's content, before it is known whether the document has that chunk already."""

    text: str
    vector: NDArray[np.float32] | None = None
    """The client's own vector; None when the corpus embeds the text."""

    @property
    def content_hash(self) -> bytes:
        """What makes two chunks of a document the same. No security boundary: that is the audit chain."""
        digest = xxhash.xxh3_128(self.text.encode())
        if self.vector is not None:
            digest.update(b"\x00")
            digest.update(self.vector.tobytes())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class PreparedPut:
    """A put whose text has been cut."""

    put: wire.Put
    pieces: Sequence[Piece]
    hashes: Sequence[bytes]


PreparedOperation = PreparedPut | wire.Delete | wire.Rename | wire.SetAcl | wire.SetMetadata


@dataclass(slots=True, eq=False)
class Slot:
    """A chunk in a document: one that exists, or one that this commit brings and that has no id yet."""

    content_hash: bytes
    chunk_id: ChunkId | None
    piece: Piece | None = None


@dataclass(slots=True, eq=False)
class DocumentState:
    """A document between two operations. `version` is 0 and `alive` False for one that never was."""

    key: str
    document_id: DocumentId | None = None
    version: int = 0
    alive: bool = False
    title: str | None = None
    uri: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    acl: list[str] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class DocumentPlan:
    """One document before and after the commit."""

    before: DocumentState
    after: DocumentState
    deaths: dict[ChunkId, Cause] = field(default_factory=dict)
    metadata_changed: bool = False
    """Whether filterable metadata of a document that lives on is another than before."""

    @property
    def changed(self) -> bool:
        """False also for what came and went within the commit: nobody ever sees it."""
        if not (self.before.alive or self.after.alive):
            return False
        return self.after.version != self.before.version or self.after.alive != self.before.alive

    @property
    def payload_changed(self) -> bool:
        """Whether chunks that live on have to show other labels or filterable metadata in the index."""
        lives_on = self.before.alive and self.after.alive
        return lives_on and (self.metadata_changed or self.before.acl != self.after.acl)

    @property
    def relabelled(self) -> bool:
        """Whether chunks that the document had before have other labels now: the dead ones too, and also when the
        document has died of the same commit."""
        return self.before.document_id is not None and self.before.acl != self.after.acl

    @property
    def births(self) -> list[Slot]:
        if not self.after.alive:
            return []
        return [slot for slot in self.after.slots if slot.piece is not None]

    @property
    def kept(self) -> list[ChunkId]:
        if not self.after.alive:
            return []
        return [slot.chunk_id for slot in self.after.slots if slot.piece is None and slot.chunk_id is not None]

    @property
    def status(self) -> DocumentStatus:
        if not self.changed:
            return DocumentStatus.UNCHANGED
        if not self.after.alive:
            return DocumentStatus.DELETED
        if not self.before.alive:
            return DocumentStatus.CREATED
        if self.after.key != self.before.key:
            return DocumentStatus.RENAMED
        return DocumentStatus.UPDATED

    @property
    def end_of_version(self) -> Cause | None:
        """Why the version that lived before the commit ends with it; None when it does not, or none lived."""
        if not (self.changed and self.before.alive):
            return None
        return Cause.SUPERSEDED if self.after.alive else Cause.DELETED

    def answer(self) -> wire.DocumentChange:
        return wire.DocumentChange(
            key=self.after.key if self.after.alive else self.before.key,
            version=self.after.version if self.changed else self.before.version,
            status=self.status,
            chunks_added=len(self.births),
            chunks_kept=len(self.kept),
            chunks_removed=len(self.deaths),
        )


def plan(
    operations: Sequence[PreparedOperation],
    documents: Iterable[DocumentState],
    newest_versions: Mapping[str, int],
    filterable: Mapping[str, FieldType],
) -> list[DocumentPlan]:
    """Apply `operations` in order; the plans come in the order in which the documents were first named.

    `documents` are those that live under a key that the operations name, or were the last to do so.
    `newest_versions` tells the highest version that was ever seen under a key, by whichever document: a key's
    versions only ever go up, so that a client's ``if_version`` cannot match a document it never saw.

    Raises ``DocumentNotFound``, ``DocumentExists`` or ``VersionConflict`` with the number of the operation.
    """
    desk = _Desk(documents, newest_versions)
    for number, operation in enumerate(operations):
        desk.apply(operation, number)
    for made in desk.plans:
        before, after = (projection(state.metadata, filterable) for state in (made.before, made.after))
        made.metadata_changed = made.before.alive and made.after.alive and before != after
    return desk.plans


class _Desk:
    """The documents as they lie while the operations are worked off."""

    def __init__(self, documents: Iterable[DocumentState], newest_versions: Mapping[str, int]) -> None:
        self.plans: list[DocumentPlan] = []
        self._plan_of: dict[int, DocumentPlan] = {}
        self._by_key = {document.key: document for document in documents}
        self._newest_versions = newest_versions

    def apply(self, operation: PreparedOperation, number: int) -> None:
        match operation:
            case PreparedPut():
                self._put(operation, number)
            case wire.Delete():
                self._delete(operation, number)
            case wire.Rename():
                self._rename(operation, number)
            case wire.SetAcl():
                self._describe(self._living(operation.key, number), acl=operation.acl)
            case wire.SetMetadata():
                self._describe(self._living(operation.key, number), metadata=operation.metadata)
            case _:
                assert_never(operation)

    def _put(self, operation: PreparedPut, number: int) -> None:
        put = operation.put
        document = self._by_key.setdefault(put.key, DocumentState(put.key))
        _check_version(document, put.if_version, number)
        plan = self._opened(document)
        slots = list(_reuse(document.slots if document.alive else [], operation))
        if document.alive and slots == document.slots:
            self._describe(document, title=put.title, uri=put.uri, metadata=put.metadata, acl=put.acl)
            return
        self._bury(plan, set(document.slots) - set(slots), Cause.SUPERSEDED)
        self._renew(document)
        document.slots, document.alive = slots, True
        self._describe(document, title=put.title, uri=put.uri, metadata=put.metadata, acl=put.acl)

    def _delete(self, operation: wire.Delete, number: int) -> None:
        document = self._living(operation.key, number)
        _check_version(document, operation.if_version, number)
        plan = self._opened(document)
        self._bury(plan, document.slots, Cause.DELETED)
        document.alive, document.slots, document.version = False, [], plan.before.version

    def _rename(self, operation: wire.Rename, number: int) -> None:
        document = self._living(operation.key, number)
        self._opened(document)
        if operation.new_key == operation.key:
            return
        in_the_way = self._by_key.get(operation.new_key)
        if in_the_way is not None and in_the_way.alive:
            raise DocumentExists(
                f"operation {number} (rename {operation.key!r}): {operation.new_key!r} exists; "
                "delete it first, in the same commit if you like"
            )
        del self._by_key[operation.key]
        self._by_key[operation.new_key] = document
        document.key = operation.new_key
        self._renew(document)

    def _describe(self, document: DocumentState, **description: Any) -> None:
        self._opened(document)
        if any(getattr(document, name) != value for name, value in description.items()):
            self._renew(document)
            for name, value in description.items():
                setattr(document, name, value)

    def _living(self, key: str, number: int) -> DocumentState:
        document = self._by_key.get(key)
        if document is None or not document.alive:
            raise DocumentNotFound(f"operation {number}: there is no document {key!r} to change")
        return document

    def _opened(self, document: DocumentState) -> DocumentPlan:
        """The document's plan; made, with a copy of its first state, when an operation first names it."""
        known = self._plan_of.get(id(document))
        if known is None:
            known = DocumentPlan(before=_copy(document), after=document)
            self._plan_of[id(document)] = known
            self.plans.append(known)
        return known

    def _renew(self, document: DocumentState) -> None:
        """Give the document the version after its last one and after the last seen under its key."""
        before = self._opened(document).before
        document.version = 1 + max(before.version, self._newest_versions.get(document.key, 0))

    @staticmethod
    def _bury(plan: DocumentPlan, slots: Iterable[Slot], cause: Cause) -> None:
        # A chunk that an earlier operation of this commit brought has never been seen: it just goes.
        for slot in slots:
            if slot.piece is None and slot.chunk_id is not None:
                plan.deaths[slot.chunk_id] = cause


def _reuse(present: Sequence[Slot], operation: PreparedPut) -> Iterator[Slot]:
    """The new text as slots: a chunk of the document with the same content stays, each once, in order."""
    by_hash: defaultdict[bytes, deque[Slot]] = defaultdict(deque)
    for slot in present:
        by_hash[slot.content_hash].append(slot)
    for piece, content_hash in zip(operation.pieces, operation.hashes, strict=True):
        same = by_hash[content_hash]
        yield same.popleft() if same else Slot(content_hash, None, piece)


def _check_version(document: DocumentState, expected: int | None, number: int) -> None:
    found = document.version if document.alive else 0
    if expected is not None and expected != found:
        raise VersionConflict(
            f"operation {number}: {document.key!r} has version {found}, not {expected}; "
            "read it again and decide anew" + (" (0 = no such document)" if 0 in (found, expected) else "")
        )


def _copy(document: DocumentState) -> DocumentState:
    return DocumentState(
        key=document.key,
        document_id=document.document_id,
        version=document.version,
        alive=document.alive,
        title=document.title,
        uri=document.uri,
        metadata=document.metadata,
        acl=document.acl,
        slots=list(document.slots),
    )
