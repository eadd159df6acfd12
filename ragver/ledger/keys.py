"""API keys. Of a secret the ledger holds a hash only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncpg import UniqueViolationError
from sqlalchemy import text

from ragver import wire
from ragver.errors import InvalidRequest, KeyExists, KeyNotFound
from ragver.ledger.database import Connection, Database, Row
from ragver.types import Role

KEYS_MAX = 1_000
"""Keys that are not revoked; every server process keeps them all in memory and reads them about once a second."""

# A new key, unless it would have expired before its first use, or there are too many.
_INSERT = text("""
    INSERT INTO api_key (id, name, hash, role, corpora, principals, rate_per_s, comment, expires_at)
    SELECT :id, :name, CAST(:hash AS bytea), :role, CAST(:corpora AS text[]), CAST(:principals AS text[]),
           CAST(:rate_per_s AS float8), :comment, CAST(:expires_at AS timestamptz)
    WHERE CAST(:expires_at AS timestamptz) IS NULL OR CAST(:expires_at AS timestamptz) > now()
    RETURNING *
""")

# How many keys can be revoked.
_COUNT = text("SELECT count(*) AS living FROM api_key WHERE revoked_at IS NULL")

# Every key there has ever been, oldest first.
_ALL = text("SELECT * FROM api_key ORDER BY created_at, id")

# The second revocation of a key changes nothing.
_REVOKE = text("UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = :id RETURNING *")

# Whether there has ever been a key, and the keys that are good now, by the database's clock. One row at least.
_LIVING = text("""
    SELECT ever.guarded, k.*, k.last_used_at >= date_trunc('minute', now()) AS used_this_minute
    FROM (SELECT EXISTS (SELECT 1 FROM api_key) AS guarded) AS ever
    LEFT JOIN api_key k ON k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
""")

# To the minute; of several processes in the same minute one writes.
_USED = text("""
    UPDATE api_key SET last_used_at = date_trunc('minute', now())
    WHERE id = :id AND (last_used_at IS NULL OR last_used_at < date_trunc('minute', now()))
""")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What has to be known of a key to let somebody in by it."""

    id: str
    name: str
    hash: bytes = field(repr=False)
    role: Role
    corpora: frozenset[str] | None
    principals: tuple[str, ...] | None
    rate_per_s: float | None
    used_this_minute: bool


@dataclass(frozen=True, slots=True)
class Living:
    """The keys that were good when they were read."""

    guarded: bool
    """There has been a key, so nobody gets in without one, also when none is left."""
    keys: Sequence[StoredKey]


async def insert(database: Database, key_id: str, digest: bytes, wanted: wire.KeyCreate) -> wire.ApiKey:
    """Keep a new key. Raises ``KeyExists`` or ``InvalidRequest``."""
    parameters = {"id": key_id, "hash": digest, **wanted.model_dump()}
    try:
        async with database.transaction() as connection:
            await _check_count(connection)
            row = await connection.first(_INSERT, parameters)
    except UniqueViolationError:
        raise KeyExists(
            f"there is a key {wanted.name!r} already; choose another name, or revoke that one first"
        ) from None
    if row is None:
        raise InvalidRequest("`expires_at` has passed by the ledger's clock; name a later time")
    return _shown(row)


async def _check_count(connection: Connection) -> None:
    (found,) = await connection.fetch(_COUNT)
    if found.living >= KEYS_MAX:
        raise InvalidRequest(
            f"there are {KEYS_MAX} keys; revoke some. A key is for an application: tell its users apart by principals"
        )


async def all_of(database: Database) -> list[wire.ApiKey]:
    """Every key, the revoked and the expired ones included, oldest first."""
    return [_shown(row) for row in await database.fetch(_ALL)]


async def revoke(database: Database, key_id: str) -> wire.ApiKey:
    """End a key for good. Raises ``KeyNotFound``."""
    async with database.transaction() as connection:
        row = await connection.first(_REVOKE, {"id": key_id})
    if row is None:
        raise KeyNotFound(f"there is no key with the id {key_id!r}; `ragver keys list` shows those there are")
    return _shown(row)


async def living(database: Database) -> Living:
    """The keys that are neither revoked nor expired, and whether a key is needed at all."""
    rows = await database.fetch(_LIVING)
    return Living(rows[0].guarded, [_stored(row) for row in rows if row.id is not None])


async def note_use(database: Database, key_id: str) -> None:
    """Remember that a key was used in this minute."""
    async with database.autocommit() as connection:
        await connection.fetch(_USED, {"id": key_id})


def _shown(row: Row) -> wire.ApiKey:
    return wire.ApiKey(**{name: row[name] for name in wire.ApiKey.model_fields})


def _stored(row: Row) -> StoredKey:
    return StoredKey(
        id=row.id,
        name=row.name,
        hash=row.hash,
        role=Role(row.role),
        corpora=None if row.corpora is None else frozenset(row.corpora),
        principals=None if row.principals is None else tuple(row.principals),
        rate_per_s=row.rate_per_s,
        used_this_minute=bool(row.used_this_minute),
    )
