"""Snapshot tokens: what a reader holds on to.

Like a Zanzibar zookie a token is opaque outside. Inside it names ledger, corpus and epoch, which of this
number it is (a restored ledger issues numbers anew), the chunks that the
retrieval returned in the order of their refs, a fingerprint of the principals they were returned to, and the
time. It is signed (HMAC-SHA-256 by itsdangerous), so what it says need not be stored or looked up again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from itsdangerous import BadData, URLSafeSerializer

from ragver.errors import SnapshotForeign, SnapshotInvalid
from ragver.types import ChunkId, CorpusId, Epoch, Lineage

FORMAT = 2
TOKEN_CHARACTERS_MAX = 32_768
_FINGERPRINT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An epoch of a corpus and the hits that were read there."""

    corpus: CorpusId
    epoch: Epoch
    lineage: Lineage
    """Which epoch of this number it is."""
    chunk_ids: tuple[ChunkId, ...]
    """In the order of their refs: ref 1 is the first."""
    principals: str
    issued_at_s: int
    """Unix time; for showing, never for deciding."""


class SnapshotTokens:
    """Issues and reads the tokens of one ledger."""

    def __init__(self, secret: str, ledger_id: UUID) -> None:
        self._ledger = ledger_id.hex
        self._serializer = URLSafeSerializer(
            secret, salt="ragver.snapshot", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def issue(self, snapshot: Snapshot) -> str:
        """The signed token for a snapshot."""
        token = self._serializer.dumps(
            [
                FORMAT,
                self._ledger,
                snapshot.corpus,
                snapshot.epoch,
                snapshot.lineage,
                snapshot.chunk_ids,
                snapshot.principals,
                snapshot.issued_at_s,
            ]
        )
        return token if isinstance(token, str) else token.decode()

    def read(self, token: str, corpus: CorpusId) -> Snapshot:
        """The snapshot of a token. Raises ``SnapshotInvalid`` or ``SnapshotForeign``."""
        ledger, owner, epoch, lineage, chunk_ids, principals, issued_at_s = self._verified(token)
        if ledger != self._ledger:
            raise SnapshotForeign("this token was issued by another ledger; retrieve again here")
        if owner != corpus:
            raise SnapshotForeign("this token was issued for another corpus; retrieve again from this one")
        return Snapshot(corpus, Epoch(epoch), Lineage(lineage), tuple(chunk_ids), principals, issued_at_s)

    def _verified(self, token: str) -> list[Any]:
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise SnapshotInvalid("this is no snapshot token: it is too long")
        try:
            content: list[Any] = self._serializer.loads(token)
        except (BadData, UnicodeError):
            raise SnapshotInvalid(
                "the token's signature does not fit; pass on the `snapshot` of a retrieval unchanged"
            ) from None
        if content[0] != FORMAT:
            raise SnapshotInvalid(f"this token has format {content[0]}, and not {FORMAT}; retrieve again")
        return content[1:]


def fingerprint(principals: Sequence[str]) -> str:
    """Tells sets of principals apart without giving them away."""
    joined = "\x00".join(sorted(set(principals)))
    return hashlib.blake2b(joined.encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()
