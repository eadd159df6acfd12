"""Brings a ledger's schema up to date, and tells whether it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ragver.errors import LedgerNotMigrated
from ragver.ledger.database import asyncpg_url, failures_named


def schema_directory() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_schema"
    return installed if installed.is_dir() else package.parent / "schema"


def config() -> Config:
    """Alembic's configuration; the environment takes the connection from its attributes."""
    made = Config()
    made.set_main_option("script_location", str(schema_directory()).replace("%", "%%"))
    return made


async def migrate(url: str) -> None:
    """Bring the schema to the newest revision. Safe to run from several processes at once."""
    await _with_connection(url, _upgrade)


async def revision(url: str) -> str | None:
    """The revision that the schema is at; None before the first migration."""
    return await _with_connection(url, _current_revision)


async def check(url: str) -> None:
    """Raise ``LedgerNotMigrated`` unless the schema is at the newest revision."""
    current = await revision(url)
    newest = await asyncio.to_thread(_newest_revision)
    if current != newest:
        raise LedgerNotMigrated(
            f"the ledger is at schema revision {current or 'none'}, this version of ragver needs {newest}: "
            "run `ragver migrate`"
        )


T = TypeVar("T")


async def _with_connection(url: str, work: Callable[[Connection], T]) -> T:
    engine = create_async_engine(asyncpg_url(url), poolclass=NullPool)
    try:
        with failures_named():
            async with engine.connect() as connection:
                return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    alembic = config()
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, "head")


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _newest_revision() -> str | None:
    return ScriptDirectory.from_config(config()).get_current_head()
