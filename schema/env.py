"""Alembic's environment: runs the migrations on a connection that the caller hands over.

To write a migration: change ``ragver/ledger/tables.py``, then
``.venv/bin/python -m schema.revise "what changes"`` and edit what it proposes.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from ragver.ledger.tables import metadata

# A migration must never queue behind a long reader and hold up everybody who queues behind it.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "15min"
# Any constant will do, as long as every version of ragver uses the same: one migration at a time.
MIGRATION_LOCK = 0x7261677665720001


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    # Before the lock timeout: another process's migration may well take longer than that.
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


run()
