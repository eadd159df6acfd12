"""The chain of the log, pure: what a row's hash is made of, and what an erasure leaves of a row.

``hash = SHA-256(prev_hash ‖ digest ‖ int8(epoch) ‖ int8(committed_at in µs))``; `digest` is the SHA-256 of the
commit's canonical JSON. Where an erasure takes a row's content, the digest of what was there stays beside what is
left, so the chain goes on over it; and the erasure's own commit seals the digests of what is left.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ragver.canonical import canonical_hash
from ragver.types import Lineage

HASH_BEFORE_FIRST = bytes(32)
REDACTED = b""
"""In the place of a request's hash, by which a guess at the erased text could be confirmed."""

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LINEAGE_DIGITS = 16


def lineage_of(hash: bytes | None) -> Lineage:
    """What tells an epoch by the hash of its commit; epoch 0 has none and is the same everywhere."""
    return Lineage("" if hash is None else hash.hex()[:LINEAGE_DIGITS])


@dataclass(frozen=True, slots=True)
class LogRow:
    """A commit as the log keeps it."""

    epoch: int
    committed_at: datetime
    actor: str | None
    reason: str | None
    idempotency_key: str | None
    request_hash: bytes
    documents: Sequence[Mapping[str, Any]]
    prev_hash: bytes
    hash: bytes
    digest: bytes | None = None
    """Of the commit as it was made, where the row was redacted since."""
    redacted_by: int | None = None

    def content_digest(self) -> bytes:
        """The digest of what the row says now."""
        return content_digest(self.actor, self.reason, self.idempotency_key, self.request_hash, self.documents)

    def link(self) -> bytes:
        """What the row's hash has to be."""
        digest = self.content_digest() if self.digest is None else self.digest
        microseconds = (self.committed_at - _UNIX_EPOCH) // _MICROSECOND
        return hashlib.sha256(self.prev_hash + digest + struct.pack(">qq", self.epoch, microseconds)).digest()


def content_digest(
    actor: str | None,
    reason: str | None,
    idempotency_key: str | None,
    request_hash: bytes,
    documents: Sequence[Mapping[str, Any]],
) -> bytes:
    """SHA-256 of a commit as the chain sees it; epoch and time are chained in beside it."""
    return canonical_hash([actor, reason, idempotency_key, request_hash.hex(), documents])


def redacted(row: LogRow, erasure_id: int, pseudonyms: Mapping[str, str], *, keep_request_hash: bool) -> LogRow:
    """The row without what an erasure takes: the request's hash, and the keys that have a pseudonym, wherever the
    row names them. The seal of an erasure's own commit is no hash of a text, and stays."""
    return replace(
        row,
        reason=_without(row.reason, pseudonyms),
        idempotency_key=_without(row.idempotency_key, pseudonyms),
        request_hash=row.request_hash if keep_request_hash else REDACTED,
        documents=[_renamed(document, pseudonyms) for document in row.documents],
        digest=row.content_digest() if row.digest is None else row.digest,
        redacted_by=erasure_id,
    )


def _without(text: str | None, pseudonyms: Mapping[str, str]) -> str | None:
    if text is None:
        return None
    # The longest first: a key may be a part of another. Only as a word of its own: a key may be a single letter.
    for key in sorted(pseudonyms, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", pseudonyms[key], text)
    return text


def _renamed(document: Mapping[str, Any], pseudonyms: Mapping[str, str]) -> dict[str, Any]:
    return {**document, "key": pseudonyms.get(document["key"], document["key"])}


def seal(erasure_id: int, document_ids: Sequence[int], redactions: Sequence[tuple[int, str]]) -> bytes:
    """What an erasure's commit has for a request hash: with the chain, it proves what the erasure redacted."""
    pairs = [[epoch, digest] for epoch, digest in redactions]
    return canonical_hash({"erasure": erasure_id, "documents": list(document_ids), "redactions": pairs})
