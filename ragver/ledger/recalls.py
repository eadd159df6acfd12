"""Recalls: which delivered answers rest on what has died since, computed from the deaths when somebody asks.

Nothing is written for them, neither with a commit nor with an answer's citations beyond the rows themselves, so a
commit costs the same however many answers are on record. A read goes through a span of epochs: to the chunks that
died in it, were erased in it, or were closed to somebody in it; from each through an index to the answers. So it
takes time in proportion to these, and none for answers that rest on nothing of the sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ragver.ledger.database import Database, Row
from ragver.types import ChunkId, CorpusId, Epoch, RecallCause, Scope

WINDOW_ROWS_MAX = 2_000
"""Deaths, or new versions, that one span may have; a single epoch is never divided."""
ANSWER_LAST = 2**63 - 1


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order of recalls: everything up to it has been told."""

    epoch: Epoch
    answer: int = ANSWER_LAST
    """By the order in which answers were first recorded; the whole epoch if not said."""


@dataclass(frozen=True, slots=True)
class Fallen:
    """A chunk that the answer rests on no longer."""

    chunk_id: ChunkId
    ref: int | None
    cited: bool
    """False for a hit that the delivered text does not cite."""
    cause: RecallCause
    document_key: str
    version: int
    superseded_by: int | None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What one commit took from one answer."""

    position: Position
    answer_key: str
    delivered_epoch: Epoch
    delivered_at: datetime
    committed_at: datetime
    actor: str | None
    reason: str | None
    chunks: list[Fallen]


# The last epoch of a span that begins after an epoch: the head, or where the rows to look at become too many.
_UNTIL = text("""
    SELECT least(
        CAST(:head AS bigint),
        greatest(CAST(:after AS bigint) + 1, (
            SELECT died_epoch - 1 FROM chunk
            WHERE corpus_id = :corpus AND died_epoch > :after AND died_epoch <= :head
            ORDER BY died_epoch, id OFFSET :rows LIMIT 1)),
        greatest(CAST(:after AS bigint) + 1, (
            SELECT born_epoch - 1 FROM document_version
            WHERE corpus_id = :corpus AND born_epoch > :after AND born_epoch <= :head
            ORDER BY born_epoch OFFSET :rows LIMIT 1))
    ) AS until
""")

_RESTED = "CASE WHEN :context THEN rested_epoch ELSE cited_epoch END"
_HASHES = "ARRAY(SELECT substr(sha256(convert_to(label, 'UTF8')), 1, 8) FROM jsonb_array_elements_text({}) AS label)"

# Recalls of the epochs of a span that come after a position, a row for each chunk. Three things take a chunk from an
# answer: its death, its erasure when it was dead already, and a new access list that none of the reader's labels is
# on while one of them was on the list before. The statement begins at those and looks answers up row by row,
# whatever the planner thinks of it.
_RECALLS = text(f"""
    WITH lost AS MATERIALIZED (
        SELECT id AS chunk_id, document_id, died_epoch AS epoch, cause
        FROM chunk WHERE corpus_id = :corpus AND died_epoch > :after AND died_epoch <= :until
        UNION ALL
        SELECT k.id, k.document_id, e.epoch, 'erased'
        FROM erasure e CROSS JOIN LATERAL unnest(e.chunk_ids) AS u(id)
        CROSS JOIN LATERAL (SELECT * FROM chunk WHERE corpus_id = :corpus AND id = u.id LIMIT 1) k
        WHERE e.corpus_id = :corpus AND e.epoch > :after AND e.epoch <= :until AND k.died_epoch < e.epoch
    ), closed AS MATERIALIZED (
        SELECT v.document_id, v.born_epoch AS epoch, v.chunk_ids,
               {_HASHES.format("p.acl")} AS before, {_HASHES.format("v.acl")} AS now
        FROM document_version v CROSS JOIN LATERAL (
            SELECT acl FROM document_version
            WHERE corpus_id = :corpus AND document_id = v.document_id AND version < v.version
            ORDER BY version DESC LIMIT 1
        ) p
        WHERE v.corpus_id = :corpus AND v.born_epoch > :after AND v.born_epoch <= :until AND p.acl <> v.acl
    ), hit AS MATERIALIZED (
        SELECT l.epoch, c.answer_id, l.chunk_id, l.document_id, l.cause, c.ref, c.cited_epoch
        FROM lost l CROSS JOIN LATERAL (
            SELECT answer_id, ref, cited_epoch FROM answer_citation
            WHERE corpus_id = :corpus AND chunk_id = l.chunk_id AND {_RESTED} < l.epoch OFFSET 0
        ) c
        UNION ALL
        SELECT s.epoch, c.answer_id, u.id, s.document_id, 'forbidden', c.ref, c.cited_epoch
        FROM closed s CROSS JOIN LATERAL unnest(s.chunk_ids) AS u(id) CROSS JOIN LATERAL (
            SELECT answer_id, ref, cited_epoch FROM answer_citation
            WHERE corpus_id = :corpus AND chunk_id = u.id AND {_RESTED} < s.epoch OFFSET 0
        ) c CROSS JOIN LATERAL (
            SELECT labels FROM answer WHERE corpus_id = :corpus AND id = c.answer_id LIMIT 1
        ) a
        WHERE a.labels && s.before AND NOT a.labels && s.now
    ), page AS MATERIALIZED (
        SELECT DISTINCT epoch, answer_id FROM hit WHERE (epoch, answer_id) > (:epoch, :answer)
        ORDER BY epoch, answer_id LIMIT :limit
    )
    SELECT h.epoch, h.answer_id, h.chunk_id, h.cause, h.ref, h.cited_epoch < h.epoch AS cited,
           a.key AS answer_key, a.delivered_epoch, a.delivered_at, l.committed_at, l.actor, l.reason,
           v.key AS document_key, v.version,
           CASE WHEN h.cause = 'superseded' AND d.alive THEN d.version END AS superseded_by
    FROM page p JOIN hit h USING (epoch, answer_id)
    CROSS JOIN LATERAL (SELECT * FROM answer WHERE corpus_id = :corpus AND id = h.answer_id LIMIT 1) a
    CROSS JOIN LATERAL (SELECT * FROM commit_log WHERE corpus_id = :corpus AND epoch = h.epoch LIMIT 1) l
    CROSS JOIN LATERAL (SELECT * FROM document WHERE corpus_id = :corpus AND id = h.document_id LIMIT 1) d
    CROSS JOIN LATERAL (
        SELECT key, version FROM document_version
        WHERE corpus_id = :corpus AND document_id = h.document_id AND born_epoch < h.epoch
        ORDER BY version DESC LIMIT 1
    ) v
    ORDER BY h.epoch, h.answer_id, h.ref, h.chunk_id
""")


async def span(database: Database, corpus: CorpusId, after: Epoch, head: Epoch) -> Epoch:
    """The last epoch of the span to read that begins after `after`; no later than `head`."""
    parameters = {"corpus": corpus, "after": after, "head": head, "rows": WINDOW_ROWS_MAX}
    return Epoch((await database.fetch(_UNTIL, parameters))[0].until)


async def page(
    database: Database, corpus: CorpusId, after: Position, until: Epoch, scope: Scope, limit: int
) -> list[Recalled]:
    """Up to `limit` recalls after a position, by epochs up to `until`, in order. With scope `context` what was only
    among the hits counts as well. Whoever must miss none calls ``answers.settle`` after `until` was committed."""
    parameters = {
        "corpus": corpus,
        # An epoch that was told in part is looked at again.
        "after": after.epoch if after.answer == ANSWER_LAST else after.epoch - 1,
        "until": until,
        "epoch": after.epoch,
        "answer": after.answer,
        "context": scope is Scope.CONTEXT,
        "limit": limit,
    }
    found: dict[Position, Recalled] = {}
    for row in await database.fetch(_RECALLS, parameters):
        position = Position(Epoch(row.epoch), row.answer_id)
        found.setdefault(position, _recalled(position, row)).chunks.append(_fallen(row))
    return list(found.values())


def _recalled(position: Position, row: Row) -> Recalled:
    return Recalled(
        position=position,
        answer_key=row.answer_key,
        delivered_epoch=Epoch(row.delivered_epoch),
        delivered_at=row.delivered_at,
        committed_at=row.committed_at,
        actor=row.actor,
        reason=row.reason,
        chunks=[],
    )


def _fallen(row: Row) -> Fallen:
    return Fallen(
        chunk_id=ChunkId(row.chunk_id),
        ref=row.ref,
        cited=bool(row.cited),
        cause=RecallCause(row.cause),
        document_key=row.document_key,
        version=row.version,
        superseded_by=row.superseded_by,
    )
