"""Walks the log's chain, and tells the first row that is not as it was made.

What is checked: that the epochs have no gap, that each row names the hash of the one before it and has the hash of
what it says, that a redacted row is what an erasure left of it, and that the log goes on up to the head. Who can
write to the database could compute a whole new chain, or cut the end off and set the head back. Against both helps
an anchor: an epoch and its hash that were written down elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ragver import wire
from ragver.errors import CorpusNotFound
from ragver.ledger.chain import HASH_BEFORE_FIRST, LogRow, seal
from ragver.ledger.database import Database, Row
from ragver.types import CorpusId

WALK_ROWS = 1_000

# How far the log must reach: the head, and the newest epoch that anything else in the ledger knows of.
_EXTENT = text("""
    SELECT c.epoch,
           (SELECT max(touched_epoch) FROM document WHERE corpus_id = c.id) AS documents,
           (SELECT max(touched_epoch) FROM chunk WHERE corpus_id = c.id) AS chunks,
           (SELECT max(applied_epoch) FROM index_generation WHERE corpus_id = c.id) AS applied,
           (SELECT max(epoch) FROM erasure WHERE corpus_id = c.id) AS erasures
    FROM corpus c WHERE c.id = :corpus
""")

_COLUMNS = """
    epoch, committed_at, actor, reason, idempotency_key, request_hash, summary, prev_hash, hash, digest, redacted_by
"""

# The log from an epoch on, in order.
_ROWS = text(f"""
    SELECT {_COLUMNS} FROM commit_log
    WHERE corpus_id = :corpus AND epoch > :after AND epoch <= :upto ORDER BY epoch LIMIT :limit
""")

# Erasures with the seal that their commits carry.
_SEALS = text("""
    SELECT e.id, e.epoch, e.document_ids, e.redactions, l.request_hash AS seal
    FROM erasure e LEFT JOIN commit_log l ON l.corpus_id = e.corpus_id AND l.epoch = e.epoch
    WHERE e.corpus_id = :corpus AND e.id = ANY(CAST(:ids AS bigint[]))
""")

Anchor = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class _Proof:
    """What an erasure says it left of the rows it redacted; None if its seal does not fit."""

    left: dict[int, str] | None


class Walk:
    """One walk along the log of a corpus."""

    def __init__(self, database: Database, corpus: CorpusId, anchor: Anchor | None = None) -> None:
        self._database = database
        self._corpus = corpus
        self._anchor = anchor
        self._verified = 0
        self._last_hash = HASH_BEFORE_FIRST
        self._redacted: list[wire.Redaction] = []
        self._proofs: dict[int, _Proof] = {}

    async def verify(self) -> wire.LogVerification:
        """Check every commit up to the head as it is now. Raises ``CorpusNotFound``."""
        extent = await self._database.fetch(_EXTENT, {"corpus": self._corpus})
        if not extent:
            raise CorpusNotFound("the corpus was deleted meanwhile")
        head = int(extent[0].epoch)
        broken = await self._first_broken(head) or self._cut_off(head, extent[0])
        return wire.LogVerification(
            intact=broken is None,
            head=head,
            head_hash=self._last_hash.hex(),
            verified=self._verified,
            redacted=self._redacted,
            broken=broken,
        )

    async def _first_broken(self, head: int) -> wire.BrokenRow | None:
        while self._verified < head:
            rows = await self._page(head)
            if not rows:
                return _broken(self._verified + 1, "truncated", f"the log ends here, and the head is {head}")
            await self._prove(rows)
            for row in rows:
                broken = self._fault(row)
                if broken is not None:
                    return broken
                self._verified, self._last_hash = row.epoch, row.hash
        return None

    async def _page(self, head: int) -> list[LogRow]:
        parameters = {"corpus": self._corpus, "after": self._verified, "upto": head, "limit": WALK_ROWS}
        return [log_row(row) for row in await self._database.fetch(_ROWS, parameters)]

    async def _prove(self, rows: Sequence[LogRow]) -> None:
        """Fetch the erasures that these rows name."""
        wanted = {row.redacted_by for row in rows if row.redacted_by is not None} - self._proofs.keys()
        for found in await self._database.fetch(_SEALS, {"corpus": self._corpus, "ids": sorted(wanted)}):
            redactions = [(epoch, digest) for epoch, digest in found.redactions]
            genuine = seal(found.id, found.document_ids, redactions) == found.seal
            self._proofs[found.id] = _Proof(dict(redactions) if genuine else None)

    def _fault(self, row: LogRow) -> wire.BrokenRow | None:
        expected = self._verified + 1
        if row.epoch != expected:
            return _broken(expected, "missing", f"the log goes on with epoch {row.epoch}")
        if row.prev_hash != self._last_hash:
            return _broken(row.epoch, "unlinked", "it does not follow the commit that is there before it")
        if row.link() != row.hash:
            return _broken(row.epoch, "altered", "its content is not what its hash was made of")
        if self._anchor is not None and self._anchor[0] == row.epoch and self._anchor[1] != row.hash:
            return _broken(row.epoch, "replaced", "its hash is not the one that was written down")
        return self._redaction_fault(row)

    def _redaction_fault(self, row: LogRow) -> wire.BrokenRow | None:
        if row.redacted_by is None and row.digest is None:
            return None
        proof = None if row.redacted_by is None else self._proofs.get(row.redacted_by)
        if proof is None or proof.left is None:
            return _broken(row.epoch, "redaction_unproven", f"no commit proves the erasure {row.redacted_by} of it")
        if proof.left.get(row.epoch) != row.content_digest().hex():
            return _broken(row.epoch, "altered", f"it is not what the erasure {row.redacted_by} left of it")
        self._redacted.append(wire.Redaction(epoch=row.epoch, erasure_id=str(row.redacted_by)))
        return None

    def _cut_off(self, head: int, extent: Row) -> wire.BrokenRow | None:
        """Whether anything in the ledger, or the anchor, knows of a later epoch than the head."""
        known = {name: extent[name] or 0 for name in ("documents", "chunks", "applied", "erasures")}
        witness = max(known, key=lambda name: int(known[name]))
        if known[witness] > head:
            return _broken(head + 1, "truncated", f"the {witness} know of epoch {known[witness]}: the end is cut off")
        if self._anchor is not None and self._anchor[0] > head:
            return _broken(head + 1, "truncated", f"epoch {self._anchor[0]} was written down: the end is cut off")
        return None


async def verify(database: Database, corpus: CorpusId, anchor: Anchor | None = None) -> wire.LogVerification:
    """Check the log of a corpus from its first commit to its head."""
    return await Walk(database, corpus, anchor).verify()


def log_row(row: Row) -> LogRow:
    """A row of ``commit_log`` as the chain knows it."""
    return LogRow(
        epoch=row.epoch,
        committed_at=row.committed_at,
        actor=row.actor,
        reason=row.reason,
        idempotency_key=row.idempotency_key,
        request_hash=row.request_hash,
        documents=row.summary,
        prev_hash=row.prev_hash,
        hash=row.hash,
        digest=row.digest,
        redacted_by=row.redacted_by,
    )


def _broken(epoch: int, kind: wire.Break, detail: str) -> wire.BrokenRow:
    return wire.BrokenRow(epoch=epoch, kind=kind, detail=detail)
