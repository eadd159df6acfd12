"""Gives back to the disk what was removed, and leaves nothing of it in PostgreSQL's files.

A removed row stays in its file until VACUUM rewrites the table, in the statistics until these are made anew and
rewritten too, and in the write-ahead log until a checkpoint lets go of the segments. Each step needs rights that the
role may not have on a managed server: then it is told, and the others are done all the same.
"""

from __future__ import annotations

import time

from asyncpg import FeatureNotSupportedError, InsufficientPrivilegeError, LockNotAvailableError
from sqlalchemy import TextClause, text

from ragver import wire
from ragver.ledger.database import Connection, Database
from ragver.telemetry import logger

STEP_S_MAX = 3_600.0
"""How long one step may take; a table is locked while it is rewritten."""
LOCK_WAIT_S_MAX = 30.0
"""How long a step waits for whoever works on the table, while all later work waits behind it."""

TABLES = ("chunk", "embedding", "document", "document_version", "commit_log", "erasure")

_STEPS: dict[str, TextClause] = {
    **{f"rewrite {table}": text(f"VACUUM (FULL, ANALYZE) {table}") for table in TABLES},
    "rewrite the statistics": text("VACUUM (FULL) pg_statistic"),
    "begin a new log segment": text("SELECT pg_switch_wal()"),
    "checkpoint": text("CHECKPOINT"),
}

_LIMIT_WAIT = text("SELECT set_config('lock_timeout', :milliseconds, false)")

# How large the ledger's tables are, indexes and long values included.
_SIZE = text("""
    SELECT sum(pg_total_relation_size(c.oid)) AS bytes FROM pg_class c
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
""")


async def size(database: Database) -> int:
    """Bytes of all tables, with their indexes."""
    return int((await database.fetch(_SIZE))[0].bytes)


async def scrub(database: Database) -> list[wire.GcStep]:
    """Rewrite every table that documents leave traces in, and let go of the log. What of it could be done."""
    async with database.own_connection(STEP_S_MAX) as connection:
        await connection.fetch(_LIMIT_WAIT, {"milliseconds": str(round(LOCK_WAIT_S_MAX * 1000))})
        return [await _step(connection, name, statement) for name, statement in _STEPS.items()]


async def _step(connection: Connection, name: str, statement: TextClause) -> wire.GcStep:
    started_s = time.monotonic()
    detail = None
    try:
        await connection.fetch(statement)
    except (InsufficientPrivilegeError, FeatureNotSupportedError) as error:
        detail = f"{error}; ask the database's administrator"
    except LockNotAvailableError:
        detail = f"somebody worked on the table for more than {LOCK_WAIT_S_MAX:.0f} s; try again"
    seconds = round(time.monotonic() - started_s, 3)
    if detail is not None:
        logger.warning("scrub_step_left", step=name, detail=detail)
    return wire.GcStep(step=f"ledger: {name}", done=detail is None, seconds=seconds, detail=detail)
