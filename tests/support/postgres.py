"""A real PostgreSQL for the tests: one server for each test process, one database for each test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from ragver.embedded.postgres import EmbeddedPostgres

T = TypeVar("T")

FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}

_serial = count(1)


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own, whether or not the caller's thread has one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


def database_of(server_url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return server_url.replace("/postgres?", f"/{name}?", 1)


def ask(url: str, statement: str) -> Any:
    """The first value that a statement answers."""
    return run_apart(_value(url, statement))


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory for an embedded PostgreSQL; gone at the end.

    Not below pytest's own directory: where root runs the tests PostgreSQL runs as another user, and pytest
    locks other users out whenever a run begins.
    """
    directory = Path(tempfile.mkdtemp(prefix="ragver-test-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def forgetful_server() -> Iterator[str]:
    """The embedded PostgreSQL without its durability, which tests would only wait for."""
    with open_directory() as directory:
        server = EmbeddedPostgres(directory / "postgres", FORGETFUL)
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def new_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """A database copied from `template`; dropped at the end, whoever is still connected."""
    name = f"test_{next(_serial)}"
    ask(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield database_of(server_url, name)
    finally:
        ask(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _value(url: str, statement: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
