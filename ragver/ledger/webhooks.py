"""Webhooks: where recalls are told, how far each has come, and what could not be told.

A webhook's position moves after its receiver has said that it has the event, and never backwards: killed between the
two, a deliverer's successor tells the event again. One deliverer at a time by an advisory lock. What a dead letter
says is not kept, only which recall it was: it is computed again when it is delivered after all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ragver.errors import CorpusNotFound, TooManyWebhooks, WebhookNotFound
from ragver.ledger.database import Database, Row
from ragver.ledger.recalls import Position
from ragver.types import CorpusId, Epoch, Scope

DELIVERER_LOCK_CLASS = 0x72616777
DELIVERER_SILENCE_S_MAX = 120.0
"""After so long without a word PostgreSQL takes the lock back from a deliverer that is paused or lost."""
WEBHOOKS_MAX = 100
"""Webhooks of one corpus."""
ERROR_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True)
class Webhook:
    corpus: CorpusId
    corpus_name: str
    webhook_id: int
    url: str
    secret: bytes
    scope: Scope
    created_at: datetime
    position: Position
    attempts: int
    """Failed ones, of the event that comes next."""
    next_attempt_at: datetime
    last_error: str | None
    delivered_at: datetime | None
    disabled_at: datetime | None
    dead_letters: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    position: Position
    attempts: int
    error: str
    failed_at: datetime
    due: bool
    """It has been asked to deliver it again."""


_COLUMNS = """
    w.*, c.name AS corpus_name,
    (SELECT count(*) FROM webhook_dead_letter d WHERE d.corpus_id = w.corpus_id AND d.webhook_id = w.id) AS dead_letters
    FROM webhook w JOIN corpus c ON c.id = w.corpus_id
"""

# Under the corpus's row lock, so that the bound holds and the corpus is there.
_LOCK = text("SELECT epoch FROM corpus WHERE id = :corpus FOR NO KEY UPDATE")
_COUNT = text("SELECT count(*) AS webhooks FROM webhook WHERE corpus_id = :corpus")
_INSERT = text("""
    INSERT INTO webhook (corpus_id, url, secret, scope, position_epoch, position_answer)
    VALUES (:corpus, :url, CAST(:secret AS bytea), :scope, :epoch, :answer) RETURNING id
""")

_ALL = text(f"SELECT {_COLUMNS} WHERE w.corpus_id = :corpus ORDER BY w.id")

_ONE = text(f"SELECT {_COLUMNS} WHERE w.corpus_id = :corpus AND w.id = :webhook")

# Webhooks of all corpora that may be served now.
_DUE = text(f"SELECT {_COLUMNS} WHERE w.disabled_at IS NULL AND w.next_attempt_at <= clock_timestamp() ORDER BY w.id")

_DELETE = text("""
    WITH letters AS (DELETE FROM webhook_dead_letter WHERE corpus_id = :corpus AND webhook_id = :webhook)
    DELETE FROM webhook WHERE corpus_id = :corpus AND id = :webhook RETURNING id
""")

# Everything up to a position has been told. Never backwards: a deliverer that was paused may come late.
_ADVANCE = text("""
    UPDATE webhook SET
        position_epoch = :epoch, position_answer = :answer, attempts = 0, next_attempt_at = clock_timestamp(),
        last_error = NULL,
        delivered_at = CASE WHEN :delivered THEN clock_timestamp() ELSE delivered_at END
    WHERE corpus_id = :corpus AND id = :webhook AND (position_epoch, position_answer) < (:epoch, :answer)
    RETURNING id
""")

_FAILED = text("""
    UPDATE webhook SET
        attempts = attempts + 1, last_error = :error,
        next_attempt_at = clock_timestamp() + make_interval(secs => :wait_s)
    WHERE corpus_id = :corpus AND id = :webhook
""")

_DISABLE = text("""
    UPDATE webhook SET disabled_at = clock_timestamp(), last_error = :error WHERE corpus_id = :corpus AND id = :webhook
""")

# An event is given up: kept as a dead letter and passed, both or neither.
_BURY = text("""
    WITH letter AS (
        INSERT INTO webhook_dead_letter (corpus_id, webhook_id, epoch, answer_id, attempts, error)
        SELECT corpus_id, id, :epoch, :answer, attempts + 1, :error FROM webhook
        WHERE corpus_id = :corpus AND id = :webhook AND (position_epoch, position_answer) < (:epoch, :answer)
        ON CONFLICT DO NOTHING
    )
    UPDATE webhook SET
        position_epoch = :epoch, position_answer = :answer, attempts = 0, next_attempt_at = clock_timestamp(),
        last_error = :error
    WHERE corpus_id = :corpus AND id = :webhook AND (position_epoch, position_answer) < (:epoch, :answer)
""")

_LETTERS = text("""
    SELECT epoch, answer_id, attempts, error, failed_at, due FROM webhook_dead_letter
    WHERE corpus_id = :corpus AND webhook_id = :webhook AND (epoch, answer_id) > (:epoch, :answer)
      AND (due OR NOT :due)
    ORDER BY epoch, answer_id LIMIT :limit
""")

# Without positions, all of them. Whoever asks for it expects the receiver to be well: nothing waits any longer.
_REDELIVER = text("""
    WITH now AS (
        UPDATE webhook SET next_attempt_at = clock_timestamp() WHERE corpus_id = :corpus AND id = :webhook
    )
    UPDATE webhook_dead_letter SET due = true
    WHERE corpus_id = :corpus AND webhook_id = :webhook AND (
        CAST(:epochs AS bigint[]) IS NULL OR (epoch, answer_id) IN (
            SELECT * FROM unnest(CAST(:epochs AS bigint[]), CAST(:answers AS bigint[]))))
    RETURNING epoch
""")

_FORGET_LETTER = text("""
    DELETE FROM webhook_dead_letter
    WHERE corpus_id = :corpus AND webhook_id = :webhook AND epoch = :epoch AND answer_id = :answer
""")

_LETTER_FAILED = text("""
    UPDATE webhook_dead_letter SET due = false, attempts = attempts + 1, error = :error, failed_at = clock_timestamp()
    WHERE corpus_id = :corpus AND webhook_id = :webhook AND epoch = :epoch AND answer_id = :answer
""")

# Session-level: PostgreSQL itself lets go when the deliverer's connection ends, however it ended.
_TRY_DELIVER = text("SELECT pg_try_advisory_lock(:class, 0) AS locked")
_LIMIT_SILENCE = text("SELECT set_config('idle_session_timeout', :milliseconds, false)")
_ALIVE = text("SELECT 1")


async def add(
    database: Database, corpus: CorpusId, url: str, secret: bytes, scope: Scope, since: Epoch | None
) -> Webhook:
    """Tell a URL the recalls after `since`, or from now on. Raises ``TooManyWebhooks``, ``CorpusNotFound``."""
    async with database.transaction() as connection:
        head = await connection.first(_LOCK, {"corpus": corpus})
        if head is None:
            raise CorpusNotFound("the corpus was deleted meanwhile")
        (count,) = await connection.fetch(_COUNT, {"corpus": corpus})
        if count.webhooks >= WEBHOOKS_MAX:
            raise TooManyWebhooks(f"the corpus has {WEBHOOKS_MAX} webhooks; delete one that is not needed any more")
        begin = Position(Epoch(head.epoch) if since is None else since)
        parameters = {"corpus": corpus, "url": url, "secret": secret, "scope": scope.value, **_place(begin)}
        (made,) = await connection.fetch(_INSERT, parameters)
    return await get(database, corpus, made.id)


async def all_of(database: Database, corpus: CorpusId) -> list[Webhook]:
    """The webhooks of a corpus, oldest first."""
    return [_webhook(row) for row in await database.fetch(_ALL, {"corpus": corpus})]


async def get(database: Database, corpus: CorpusId, webhook_id: int) -> Webhook:
    """One webhook. Raises ``WebhookNotFound``."""
    rows = await database.fetch(_ONE, {"corpus": corpus, "webhook": webhook_id})
    if not rows:
        raise WebhookNotFound(f"there is no webhook {webhook_id}")
    return _webhook(rows[0])


async def due(database: Database) -> list[Webhook]:
    """The webhooks of all corpora whose next attempt may be made."""
    return [_webhook(row) for row in await database.fetch(_DUE)]


async def delete(database: Database, corpus: CorpusId, webhook_id: int) -> None:
    """Tell it nothing more. Raises ``WebhookNotFound``."""
    async with database.autocommit() as connection:
        if await connection.first(_DELETE, {"corpus": corpus, "webhook": webhook_id}) is None:
            raise WebhookNotFound(f"there is no webhook {webhook_id}")


async def advance(database: Database, webhook: Webhook, position: Position, *, delivered: bool) -> bool:
    """Everything up to `position` has been told, or there was nothing to tell. False: the webhook is gone, or further
    on already."""
    parameters = {**_key(webhook), **_place(position), "delivered": delivered}
    async with database.autocommit() as connection:
        return await connection.first(_ADVANCE, parameters) is not None


async def failed(database: Database, webhook: Webhook, error: str, wait_s: float) -> None:
    """An attempt has failed; the next one is due in `wait_s` seconds by the database's clock."""
    async with database.autocommit() as connection:
        await connection.fetch(_FAILED, {**_key(webhook), "error": error[:ERROR_CHARACTERS_MAX], "wait_s": wait_s})


async def disable(database: Database, webhook: Webhook, error: str) -> None:
    """Its receiver wants no more events."""
    async with database.autocommit() as connection:
        await connection.fetch(_DISABLE, {**_key(webhook), "error": error[:ERROR_CHARACTERS_MAX]})


async def bury(database: Database, webhook: Webhook, position: Position, error: str) -> None:
    """Give an event up: it becomes a dead letter, and the next one has its turn."""
    async with database.autocommit() as connection:
        parameters = {**_key(webhook), **_place(position), "error": error[:ERROR_CHARACTERS_MAX]}
        await connection.fetch(_BURY, parameters)


async def dead_letters(
    database: Database, corpus: CorpusId, webhook_id: int, after: Position, limit: int, *, only_due: bool = False
) -> list[DeadLetter]:
    """Up to `limit` dead letters after a position, in order; with `only_due`, those to be delivered again."""
    parameters = {"corpus": corpus, "webhook": webhook_id, **_place(after), "limit": limit, "due": only_due}
    return [_letter(row) for row in await database.fetch(_LETTERS, parameters)]


async def redeliver(database: Database, corpus: CorpusId, webhook_id: int, positions: Sequence[Position] | None) -> int:
    """Have dead letters delivered again, or all of them; how many it are."""
    parameters = {
        "corpus": corpus,
        "webhook": webhook_id,
        "epochs": None if positions is None else [position.epoch for position in positions],
        "answers": None if positions is None else [position.answer for position in positions],
    }
    async with database.autocommit() as connection:
        return len(await connection.fetch(_REDELIVER, parameters))


async def forget_letter(database: Database, webhook: Webhook, position: Position) -> None:
    """A dead letter was delivered after all, or there is nothing left to tell."""
    async with database.autocommit() as connection:
        await connection.fetch(_FORGET_LETTER, {**_key(webhook), **_place(position)})


async def letter_failed(database: Database, webhook: Webhook, position: Position, error: str) -> None:
    """A dead letter could not be delivered this time either; it waits until it is asked for again."""
    async with database.autocommit() as connection:
        parameters = {**_key(webhook), **_place(position), "error": error[:ERROR_CHARACTERS_MAX]}
        await connection.fetch(_LETTER_FAILED, parameters)


@asynccontextmanager
async def deliverer(database: Database) -> AsyncIterator[Callable[[], Awaitable[object]] | None]:
    """The right to deliver, until the end of the block: a check that raises ``LedgerUnavailable`` once it is lost.
    None while another process has it."""
    async with database.own_connection() as connection:
        await connection.fetch(_LIMIT_SILENCE, {"milliseconds": str(round(DELIVERER_SILENCE_S_MAX * 1000))})
        (answer,) = await connection.fetch(_TRY_DELIVER, {"class": DELIVERER_LOCK_CLASS})
        yield (lambda: connection.fetch(_ALIVE)) if answer.locked else None


def _key(webhook: Webhook) -> dict[str, int]:
    return {"corpus": webhook.corpus, "webhook": webhook.webhook_id}


def _place(position: Position) -> dict[str, int]:
    return {"epoch": position.epoch, "answer": position.answer}


def _webhook(row: Row) -> Webhook:
    return Webhook(
        corpus=CorpusId(row.corpus_id),
        corpus_name=row.corpus_name,
        webhook_id=row.id,
        url=row.url,
        secret=row.secret,
        scope=Scope(row.scope),
        created_at=row.created_at,
        position=Position(Epoch(row.position_epoch), row.position_answer),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
        disabled_at=row.disabled_at,
        dead_letters=row.dead_letters,
    )


def _letter(row: Row) -> DeadLetter:
    position = Position(Epoch(row.epoch), row.answer_id)
    return DeadLetter(position, row.attempts, row.error, row.failed_at, row.due)
