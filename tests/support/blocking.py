"""Holds a commit in its middle: its rows are written and it has not committed yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.support.ledger import query, waits_for_a_lock

GATE = 4711

# A deferred constraint trigger runs when the transaction is about to commit, an ordinary one with its row.
_TRIGGER = """
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock({gate}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER gate AFTER INSERT OR UPDATE ON {table}
    {when} FOR EACH ROW EXECUTE FUNCTION wait_at_gate()
"""


class Gate:
    """Closed: whatever commits waits in front of it."""

    def __init__(self, url: str, holder: Any) -> None:
        self._url = url
        self._holder = holder

    async def reached(self) -> None:
        """Return once a commit waits."""
        await waits_for_a_lock(self._url)

    async def open(self) -> None:
        """Let the commit that waits, and all others, go on."""
        await self._holder.execute(f"SELECT pg_advisory_unlock({GATE})")

    async def terminate(self) -> None:
        """End the sessions that wait, as an administrator would."""
        await query(
            self._url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )


@asynccontextmanager
async def gate(url: str, table: str, *, at_commit: bool) -> AsyncIterator[Gate]:
    """Stop every write to `table` at its row, or where its transaction is about to commit."""
    holder = await asyncpg.connect(url)
    try:
        when = "DEFERRABLE INITIALLY DEFERRED" if at_commit else ""
        await holder.execute(_TRIGGER.format(gate=GATE, table=table, when=when))
        await holder.execute(f"SELECT pg_advisory_lock({GATE})")
        yield Gate(url, holder)
    finally:
        await holder.close()
