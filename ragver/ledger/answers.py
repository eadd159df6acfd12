"""Recorded answers: whose text leaned on what, never the text itself.

Recalls are computed when somebody asks: from the deaths of a span of epochs, through the citations, to the answers
(``ragver.ledger.recalls``). A commit does nothing for them, however many answers there are. Whoever follows the
recalls must miss none, though, and there is one way to: an answer is validated, a chunk that it cites dies, a
follower reads that epoch and moves on, and only then is the answer recorded. So whoever records holds a shared
advisory lock, looks under it whether anything it rests on was touched since the verdict, and if so has to validate
again. Whoever reads recalls up to an epoch takes that lock exclusively for a moment first (``settle``). Answers that
were being recorded before are then there to be seen; those that come later see the epoch and are not out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from asyncpg import LockNotAvailableError
from sqlalchemy import text

from ragver.errors import AnswersUnsettled
from ragver.ledger.database import Connection, Database, Row
from ragver.types import ChunkId, CitationStatus, CorpusId, Decision, Epoch, Policy, Scope

ANSWERS_LOCK_CLASS = 0x72616761
"""Advisory locks of recorders and followers, beside ``generations.LEADER_LOCK_CLASS``."""
RECORDING_SILENCE_MS_MAX = 5_000
"""After so long without a word PostgreSQL ends the transaction of a recorder that stands still."""
SETTLE_MS_MAX = 15_000
"""How long whoever reads recalls waits for recorders; longer than one that stands still is let be."""
LABEL_BYTES = 8


@dataclass(frozen=True, slots=True)
class Cited:
    """A chunk of an answer, or a citation that stands for none."""

    chunk_id: ChunkId | None
    ref: int | None
    status: CitationStatus | None
    """None for a hit that is not cited."""
    cited_epoch: Epoch | None
    """Of the first verdict on which text went out that cites it."""
    rested_epoch: Epoch | None
    """Of the first verdict on which text went out that had it among the hits, or cites it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a validation leaves behind."""

    key: str
    snapshot_epoch: Epoch
    epoch: Epoch
    verdict: Decision
    policy: Policy
    scope: Scope
    reader: str
    labels: list[bytes]
    chunks: Sequence[Cited]
    """Each pair of chunk and ref once."""

    @property
    def delivered(self) -> bool:
        """Whether text could go out on this verdict."""
        return self.verdict is not Decision.REJECT


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    key: str
    recorded_at: datetime
    validated_at: datetime
    validations: int
    snapshot_epoch: Epoch
    epoch: Epoch
    verdict: Decision
    policy: Policy
    scope: Scope
    delivered_epoch: Epoch | None
    delivered_at: datetime | None
    reader: str
    chunks: list[Cited]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a recording."""

    current: bool
    """False: something that the answer rests on was touched after the verdict, and nothing was written."""
    kept: bool
    """False although current: the key is that of another reader's answer."""


# Under the lock from here to the end of the transaction.
_SHARE = text("""
    SELECT set_config('idle_in_transaction_session_timeout', :silence_ms, true),
           pg_advisory_xact_lock_shared(:class, CAST(:corpus AS int))
""")

# Waits until every recording that began before is done; the lock goes with the transaction.
_SHUT_OUT = text("SELECT pg_advisory_xact_lock(:class, CAST(:corpus AS int))")
_SETTLE_TIMEOUT = text("SELECT set_config('lock_timeout', :settle_ms, true)")

# The answer and its chunks, if nothing under them was touched since the verdict. An answer validated before keeps
# the first epochs at which anything of it could go out; a chunk keeps its status where the new verdict is silent.
_RECORD = text("""
    WITH free AS (
        SELECT id FROM corpus WHERE id = :corpus AND NOT EXISTS (
            SELECT 1 FROM unnest(CAST(:chunk_ids AS bigint[])) AS u(id)
            CROSS JOIN LATERAL (
                SELECT document_id FROM chunk WHERE corpus_id = :corpus AND id = u.id LIMIT 1
            ) k
            CROSS JOIN LATERAL (
                SELECT touched_epoch FROM document WHERE corpus_id = :corpus AND id = k.document_id LIMIT 1
            ) d
            WHERE d.touched_epoch > :epoch
        )
    ), kept AS (
        INSERT INTO answer AS a (corpus_id, key, snapshot_epoch, epoch, verdict, policy, scope, reader, labels,
                                 delivered_epoch, delivered_at)
        SELECT free.id, :key, :snapshot_epoch, :epoch, :verdict, :policy, :scope, :reader, CAST(:labels AS bytea[]),
               :delivered_epoch, CASE WHEN CAST(:delivered_epoch AS bigint) IS NOT NULL THEN now() END
        FROM free
        ON CONFLICT (corpus_id, key) DO UPDATE SET
            snapshot_epoch = excluded.snapshot_epoch, epoch = excluded.epoch, verdict = excluded.verdict,
            policy = excluded.policy, scope = excluded.scope,
            validations = a.validations + 1, validated_at = now(),
            delivered_epoch = coalesce(a.delivered_epoch, excluded.delivered_epoch),
            delivered_at = coalesce(a.delivered_at, excluded.delivered_at)
        WHERE a.reader = excluded.reader
        RETURNING id
    ), chunks AS (
        INSERT INTO answer_citation AS c (corpus_id, answer_id, chunk_id, ref, status, cited_epoch, rested_epoch)
        SELECT :corpus, kept.id, made.*
        FROM kept, unnest(CAST(:chunk_ids AS bigint[]), CAST(:refs AS bigint[]), CAST(:statuses AS text[]),
                          CAST(:cited_epochs AS bigint[]), CAST(:rested_epochs AS bigint[])) AS made
        ON CONFLICT (corpus_id, answer_id, chunk_id, ref) DO UPDATE SET
            status = coalesce(excluded.status, c.status),
            cited_epoch = coalesce(c.cited_epoch, excluded.cited_epoch),
            rested_epoch = coalesce(c.rested_epoch, excluded.rested_epoch)
    )
    SELECT EXISTS (SELECT FROM free) AS current, EXISTS (SELECT FROM kept) AS kept
""")

# Answers by their keys, a row for each of their chunks; one without any has a row of its own.
_ANSWERS = text("""
    SELECT a.*, c.chunk_id, c.ref, c.status, c.cited_epoch, c.rested_epoch, c.answer_id IS NOT NULL AS has_chunk
    FROM unnest(CAST(:keys AS text[])) AS u(key)
    CROSS JOIN LATERAL (SELECT * FROM answer WHERE corpus_id = :corpus AND key = u.key LIMIT 1) a
    LEFT JOIN LATERAL (SELECT * FROM answer_citation WHERE corpus_id = :corpus AND answer_id = a.id) c ON true
    ORDER BY a.id, c.ref, c.chunk_id
""")

# A batch of the answers that were last validated long enough ago, by the database's clock, with their chunks.
_FORGET = text("""
    WITH old AS (
        SELECT id FROM answer
        WHERE corpus_id = :corpus AND validated_at < now() - make_interval(secs => :age_s)
        ORDER BY validated_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), chunks AS (
        DELETE FROM answer_citation WHERE corpus_id = :corpus AND answer_id = ANY(ARRAY(SELECT id FROM old))
    )
    DELETE FROM answer WHERE corpus_id = :corpus AND id = ANY(ARRAY(SELECT id FROM old)) RETURNING id
""")


def label_hashes(labels: Iterable[str]) -> list[bytes]:
    """Tell labels apart without naming them; the statements of ``ledger.recalls`` hash access lists the same way."""
    return sorted({sha256(label.encode()).digest()[:LABEL_BYTES] for label in labels})


async def record(database: Database, corpus: CorpusId, recording: Recording) -> Outcome:
    """Keep an answer, or what one more validation adds to it."""
    async with database.transaction() as connection:
        await connection.fetch(
            _SHARE, {"class": ANSWERS_LOCK_CLASS, "corpus": corpus, "silence_ms": str(RECORDING_SILENCE_MS_MAX)}
        )
        (row,) = await connection.fetch(_RECORD, _columns(corpus, recording))
    return Outcome(row.current, row.kept)


def _columns(corpus: CorpusId, recording: Recording) -> dict[str, Any]:
    chunks = recording.chunks
    return {
        "corpus": corpus,
        "key": recording.key,
        "snapshot_epoch": recording.snapshot_epoch,
        "epoch": recording.epoch,
        "verdict": recording.verdict.value,
        "policy": recording.policy.value,
        "scope": recording.scope.value,
        "reader": recording.reader,
        "labels": recording.labels,
        "delivered_epoch": recording.epoch if recording.delivered else None,
        "chunk_ids": [chunk.chunk_id for chunk in chunks],
        "refs": [chunk.ref for chunk in chunks],
        "statuses": [None if chunk.status is None else chunk.status.value for chunk in chunks],
        "cited_epochs": [chunk.cited_epoch for chunk in chunks],
        "rested_epochs": [chunk.rested_epoch for chunk in chunks],
    }


async def settle(database: Database, corpus: CorpusId) -> None:
    """Return once all that was being recorded when this was called can be seen. Raises ``AnswersUnsettled``."""
    try:
        async with database.transaction() as connection:
            await connection.fetch(_SETTLE_TIMEOUT, {"settle_ms": str(SETTLE_MS_MAX)})
            await shut_out(connection, corpus)
    except LockNotAvailableError:
        raise AnswersUnsettled(
            f"an answer has been in the middle of being recorded for {SETTLE_MS_MAX / 1000:g} s; ask again"
        ) from None


async def shut_out(connection: Connection, corpus: CorpusId) -> None:
    """Wait for who is recording an answer of the corpus, and let nobody begin until the transaction ends."""
    await connection.fetch(_SHUT_OUT, {"class": ANSWERS_LOCK_CLASS, "corpus": corpus})


async def by_keys(database: Database, corpus: CorpusId, keys: Sequence[str]) -> dict[str, RecordedAnswer]:
    """The answers that are kept among `keys`."""
    found: dict[str, RecordedAnswer] = {}
    for row in await database.fetch(_ANSWERS, {"corpus": corpus, "keys": list(dict.fromkeys(keys))}):
        answer = found.setdefault(row.key, _answer(row))
        if row.has_chunk:
            answer.chunks.append(_cited(row))
    return found


async def forget(database: Database, corpus: CorpusId, age_s: int, limit: int) -> int:
    """Remove up to `limit` answers whose newest validation is `age_s` old by the database's clock; how many it were."""
    async with database.autocommit() as connection:
        return len(await connection.fetch(_FORGET, {"corpus": corpus, "age_s": age_s, "limit": limit}))


def _answer(row: Row) -> RecordedAnswer:
    return RecordedAnswer(
        key=row.key,
        recorded_at=row.recorded_at,
        validated_at=row.validated_at,
        validations=row.validations,
        snapshot_epoch=Epoch(row.snapshot_epoch),
        epoch=Epoch(row.epoch),
        verdict=Decision(row.verdict),
        policy=Policy(row.policy),
        scope=Scope(row.scope),
        delivered_epoch=_epoch(row.delivered_epoch),
        delivered_at=row.delivered_at,
        reader=row.reader,
        chunks=[],
    )


def _cited(row: Row) -> Cited:
    return Cited(
        chunk_id=None if row.chunk_id is None else ChunkId(row.chunk_id),
        ref=row.ref,
        status=None if row.status is None else CitationStatus(row.status),
        cited_epoch=_epoch(row.cited_epoch),
        rested_epoch=_epoch(row.rested_epoch),
    )


def _epoch(number: int | None) -> Epoch | None:
    return None if number is None else Epoch(number)
