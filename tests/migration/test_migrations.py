"""The migrations make the tables that the code declares, and can be run by anybody at any time."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ragver.errors import LedgerNotMigrated
from ragver.ledger import migrations
from ragver.ledger.database import asyncpg_url
from ragver.ledger.migrations import check, migrate, revision
from ragver.ledger.tables import metadata
from schema.dump import SCHEMA_SQL, dump
from tests.support.child import child
from tests.support.postgres import ask

ONLY_IN_MIGRATIONS = {"ALTER TABLE ONLY public.embedding ALTER COLUMN vector SET STORAGE EXTERNAL;"}
"""What SQLAlchemy cannot declare."""

MIGRATE = """
import asyncio, sys
from ragver.ledger.migrations import migrate

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(migrate(sys.argv[1]))
print("done", flush=True)
"""

T = TypeVar("T")


async def on_connection(url: str, work: Callable[[Connection], T]) -> T:
    engine = create_async_engine(asyncpg_url(url), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def statements(url: str) -> set[str]:
    return set(re.split(r"(?<=;)\n+", dump(url).strip()))


async def test_migrations_give_the_declared_tables(database_url: str) -> None:
    """Alembic finds nothing to add, remove or change."""
    differences = await on_connection(
        database_url, lambda connection: compare_metadata(MigrationContext.configure(connection), metadata)
    )
    assert [] == differences


async def test_migrations_give_every_constraint_sequence_and_index(database_url: str, empty_database_url: str) -> None:
    """Also what Alembic does not compare is the same as in tables made from the declarations."""
    await on_connection(empty_database_url, metadata.create_all)
    declared, migrated = statements(empty_database_url), statements(database_url)
    assert ONLY_IN_MIGRATIONS == migrated - declared
    assert set() == declared - migrated


def test_schema_sql_is_what_the_migrations_give(database_url: str) -> None:
    """The file for readers is up to date."""
    assert dump(database_url) == SCHEMA_SQL.read_text(), "run: .venv/bin/python -m schema.dump"


async def test_schema_sql_can_be_run(empty_database_url: str) -> None:
    """The file is a schema and not only a picture of one."""
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(SCHEMA_SQL.read_text())
    await connection.close()
    assert SCHEMA_SQL.read_text() == dump(empty_database_url)


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    """A ledger at the newest revision stays as it is, its identity included."""
    before = dump(database_url), ask(database_url, "SELECT id FROM ledger")
    await migrate(database_url)
    assert before == (dump(database_url), ask(database_url, "SELECT id FROM ledger"))


async def test_processes_may_migrate_at_once(empty_database_url: str) -> None:
    """Of many who migrate an empty database one does it, and the others find it done."""
    with ExitStack() as stack:
        children = [stack.enter_context(child(MIGRATE, empty_database_url)) for _ in range(3)]
        for ready in children:
            assert ready.read() == "ready"
        for ready in children:
            ready.tell()
        assert ["done"] * 3 == [done.read() for done in children]
    await check(empty_database_url)
    assert ask(empty_database_url, "SELECT count(*) FROM ledger") == 1


async def test_down_and_up_again(database_url: str) -> None:
    """Downgrading takes everything away; upgrading brings it back."""
    before = dump(database_url)

    def downgrade(connection: Connection) -> None:
        alembic = migrations.config()
        alembic.attributes["connection"] = connection
        command.downgrade(alembic, "base")

    await on_connection(database_url, downgrade)
    assert ask(database_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 2, (
        "only Alembic's table and its key should be left"
    )
    await migrate(database_url)
    assert before == dump(database_url)


async def test_an_empty_database_is_told_from_a_migrated_one(empty_database_url: str) -> None:
    """What has to be done is said, and nothing is done unasked."""
    with pytest.raises(LedgerNotMigrated, match=r"revision none.*ragver migrate"):
        await check(empty_database_url)
    assert await revision(empty_database_url) is None
    await migrate(empty_database_url)
    await check(empty_database_url)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment with its own migrations gone, to be filled with others."""
    directory = tmp_path / "schema"
    shutil.copytree(migrations.schema_directory(), directory, ignore=shutil.ignore_patterns("versions", "__pycache__"))
    (directory / "versions").mkdir()
    monkeypatch.setattr(migrations, "schema_directory", lambda: directory)
    return directory


def write_migration(scripts: Path, body: str) -> None:
    (scripts / "versions" / "1.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '1', None\n"
        f"def upgrade():\n    {body}\n"
        "def downgrade():\n    pass\n"
    )


async def test_migrations_run_with_timeouts(empty_database_url: str, scripts: Path) -> None:
    """No migration waits for a lock for long, nor runs for ever."""
    settings = "SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement"
    write_migration(scripts, f'op.execute("CREATE TABLE seen AS {settings}")')
    await migrate(empty_database_url)
    assert ("5s", "15min") == (
        ask(empty_database_url, "SELECT lock FROM seen"),
        ask(empty_database_url, "SELECT statement FROM seen"),
    )


async def test_the_second_waits_for_a_migration_that_takes_long(empty_database_url: str, scripts: Path) -> None:
    """A migration longer than the lock timeout does not fail the process that waits for its turn."""
    environment = (scripts / "env.py").read_text()
    (scripts / "env.py").write_text(environment.replace('LOCK_TIMEOUT = "5s"', 'LOCK_TIMEOUT = "20ms"'))
    found = re.search(r"MIGRATION_LOCK = (\w+)", environment)
    assert found is not None
    write_migration(scripts, 'op.execute("CREATE TABLE made ()")')
    first = await asyncpg.connect(empty_database_url)
    await first.execute(f"SELECT pg_advisory_lock({int(found[1], 16)})")
    second = asyncio.create_task(migrate(empty_database_url))
    await asyncio.wait([second], timeout=0.5)
    assert not second.done()
    await first.close()
    await second
    assert await revision(empty_database_url) == "1"
