"""Fixtures for every test, the order of the tests, and how hard Hypothesis tries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ragver.bootstrap import Services
from ragver.ledger.migrations import migrate
from tests.support.postgres import forgetful_server, new_database, open_directory, run_apart
from tests.support.server import Server, running_server
from tests.support.services import open_test_services

settings.register_profile("ci", derandomize=True, max_examples=50, deadline=None, print_blob=True)
settings.register_profile("dev", max_examples=200, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

TESTS = Path(__file__).parent
LAYERS = ("unit", "integration", "migration", "conformance", "simulation", "acceptance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick answers first: unit tests before those that need a server, slow ones last of all."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, _layer(item.path)))


def _layer(path: Path) -> int:
    folder = path.relative_to(TESTS).parts[0]
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Where an embedded PostgreSQL can live, whoever runs the tests; not made yet."""
    with open_directory() as directory:
        yield directory / ".ragver"


@pytest.fixture(scope="module")
def module_data_dir() -> Iterator[Path]:
    """The same, shared by the tests of a module."""
    with open_directory() as directory:
        yield directory / ".ragver"


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """A server in a process of its own, for tests that only need one to talk to, each in corpora of its own."""
    with open_directory() as directory, running_server(directory / "data") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running PostgreSQL that forgets everything in a crash; the URL is that of its `postgres` database."""
    with forgetful_server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a database with the current schema and no rows, to be copied."""
    with new_database(postgres_url) as url:
        run_apart(migrate(url))
        yield url.partition("@/")[2].partition("?")[0]


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own, without a schema."""
    with new_database(postgres_url) as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """A migrated ledger of the test's own, without a row."""
    with new_database(postgres_url, template=migrated_template) as url:
        yield url


@pytest.fixture
async def services(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """All services on a ledger and an index of the test's own, the indexer running."""
    async with open_test_services(database_url, tmp_path / "data", indexing=True) as opened:
        yield opened
