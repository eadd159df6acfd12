"""Connections to PostgreSQL, and what its failures mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import Row, TextClause
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from ragver.errors import LedgerUnavailable, SettingsInvalid

CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 60
POOL_WAIT_S_MAX = 10
CONNECT_ARGUMENTS = {
    "timeout": CONNECT_TIMEOUT_S,
    "command_timeout": COMMAND_TIMEOUT_S,
    "server_settings": {"application_name": "ragver", "jit": "off"},
}

Rows = Sequence[Row[Any]]

# SQLSTATE classes that say «not now» and not «not so»: connection, resources, operator intervention.
_PASSING_SQLSTATE_CLASSES = ("08", "53", "57")


def asyncpg_url(url: str) -> URL:
    """The SQLAlchemy form of a PostgreSQL URL; any driver named in it gives way to asyncpg."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsInvalid("RAGVER_DATABASE_URL is not a URL; it looks like postgresql://user@host/name") from None
    if not parsed.drivername.startswith("postgres"):
        raise SettingsInvalid(f"the ledger needs PostgreSQL, not {parsed.drivername!r}; use postgresql://…")
    return parsed.set(drivername="postgresql+asyncpg")


class Database:
    """A pool of connections to one ledger.

    Reads run in autocommit: one statement sees one state, and nothing is left open. Whatever keeps PostgreSQL
    from answering becomes ``LedgerUnavailable``; an answer that PostgreSQL did give is passed on as it is.
    """

    def __init__(self, url: str, pool_max: int = 16) -> None:
        self._engine = create_async_engine(
            asyncpg_url(url),
            pool_size=pool_max,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S_MAX,
            connect_args=CONNECT_ARGUMENTS,
        )
        self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def fetch(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> Rows:
        """The rows of one reading statement; asked twice when the connection turns out to be stale."""
        try:
            return await self._fetch_once(statement, parameters)
        except LedgerUnavailable:
            return await self._fetch_once(statement, parameters)

    async def _fetch_once(self, statement: TextClause, parameters: Mapping[str, Any] | None) -> Rows:
        async with self.autocommit() as connection:
            return (await connection.execute(statement, parameters)).all()

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which every statement is a transaction of its own."""
        with failures_named():
            async with self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits at the end of the block and rolls back on an exception."""
        with failures_named():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[AsyncConnection]:
        """An autocommit connection outside the pool, for session locks; closed at the end of the block."""
        engine = create_async_engine(self._engine.url, poolclass=NullPool, connect_args=CONNECT_ARGUMENTS)
        try:
            with failures_named():
                connection = await engine.execution_options(isolation_level="AUTOCOMMIT").connect()
            try:
                yield connection
            finally:
                await connection.close()
        finally:
            await engine.dispose()

    async def close(self) -> None:
        await self._engine.dispose()


@contextmanager
def failures_named() -> Iterator[None]:
    """Turn «PostgreSQL could not answer» into ``LedgerUnavailable``."""
    try:
        yield
    except (OSError, TimeoutError, PoolTimeoutError, OperationalError, InterfaceError) as error:
        raise _unavailable(error) from error
    except DBAPIError as error:
        if error.connection_invalidated or _passing(error):
            raise _unavailable(error) from error
        raise


def _passing(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(state, str) and state[:2] in _PASSING_SQLSTATE_CLASSES


def _unavailable(error: Exception) -> LedgerUnavailable:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return LedgerUnavailable(
        f"the ledger did not answer ({type(cause).__name__}); if this was a commit, its outcome is unknown: "
        "repeat it with the same Idempotency-Key, or look at the change feed"
    )
