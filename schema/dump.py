"""Writes ``schema.sql``: the tables as the migrations leave them, for people and for reviews.

After a new migration: ``.venv/bin/python -m schema.dump``. A test compares the file with the migrations.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from pathlib import Path

from ragver.embedded.postgres import EmbeddedPostgres
from ragver.embedded.programs import Programs
from ragver.ledger.migrations import migrate

SCHEMA_SQL = Path(__file__).with_name("schema.sql")
HEADER = "-- The ledger's tables. Written by `python -m schema.dump` from the migrations; do not edit.\n"
# What differs between sessions and servers, and what the reader of a schema need not know.
_NOISE = re.compile(r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)$", re.MULTILINE)


def dump(url: str) -> str:
    """The DDL that makes a database like the one at `url`, without Alembic's own table."""
    # Any directory without data will do: it selects the newest programs.
    pg_dump = Programs(Path("/nonexistent")).directory / "pg_dump"
    options = ["--schema-only", "--no-owner", "--no-privileges", "--exclude-table=alembic_version"]
    made = subprocess.run([pg_dump, *options, url], check=True, capture_output=True, text=True)
    statements = re.sub(r"\n{2,}", "\n\n", _NOISE.sub("", made.stdout)).strip()
    return f"{HEADER}\n{statements}\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ragver-dump-") as directory:
        server = EmbeddedPostgres(Path(directory) / "postgres", {"fsync": "off"})
        try:
            url = server.start()
            asyncio.run(migrate(url))
            SCHEMA_SQL.write_text(dump(url))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
