"""A ledger that goes away is an error that says so, and nothing has to be restarted when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from ragver import wire
from ragver.bootstrap import Services
from ragver.embedded.datadir import DataDir
from ragver.embedded.postgres import EmbeddedPostgres
from ragver.errors import LedgerUnavailable
from ragver.ledger.database import Database
from ragver.ledger.migrations import check
from tests.support.ledger import check_chain, check_index, query, waits
from tests.support.services import CORPUS, caught_up, commit, make_corpus, open_test_services, put

SLEEP_AT_COMMIT = (
    "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON commit_log DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW WHEN (NEW.actor = 'doomed') EXECUTE FUNCTION sleep()",
)


@pytest.fixture
def server(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(DataDir(data_dir).postgres)


@pytest.fixture
async def embedded(data_dir: Path, server: EmbeddedPostgres) -> AsyncIterator[Services]:
    """Services with a PostgreSQL of their own, which the test may stop; the indexer runs."""
    async with open_test_services(None, data_dir, indexing=True) as services:
        await make_corpus(services)
        yield services
    server.stop()


async def test_the_ledger_goes_away_and_comes_back(embedded: Services, server: EmbeddedPostgres) -> None:
    """Ended in mid-commit, the ledger keeps nothing of it. While it is away every read and write says so. Then
    the next request is answered, and the indexer goes on."""
    url = embedded.database.url
    await commit(embedded, CORPUS, put("a", "a says 1"), put("b", "b says 1"))
    found = await embedded.retrieval.retrieve(CORPUS, wire.RetrieveRequest(query="says"))
    for statement in SLEEP_AT_COMMIT:
        await query(url, statement)
    doomed = asyncio.create_task(commit(embedded, CORPUS, put("a", "a says 2"), put("b", "b says 2"), actor="doomed"))
    await waits(url, "Timeout")
    await asyncio.to_thread(server.stop)
    with pytest.raises(LedgerUnavailable, match="outcome is unknown"):
        await doomed

    for request in (
        embedded.catalog.document(CORPUS, "a", None),
        embedded.catalog.corpora(),
        embedded.retrieval.retrieve(CORPUS, wire.RetrieveRequest(query="says")),
        embedded.validation.validate(CORPUS, wire.ValidateRequest(snapshot=found.snapshot, answer="So [1].")),
        commit(embedded, CORPUS, put("c", "x")),
    ):
        with pytest.raises(LedgerUnavailable):
            await request

    await asyncio.to_thread(server.start)
    assert 2 == (await commit(embedded, CORPUS, put("a", "a says 3"))).epoch
    assert ["a says 3", "b says 1"] == [(await embedded.catalog.document(CORPUS, key, None)).text for key in ("a", "b")]
    await caught_up(embedded)
    assert 2 == await check_chain(url, CORPUS)
    assert 3 == await check_index(embedded, CORPUS)


async def test_a_restart_that_nobody_noticed(embedded: Services, server: EmbeddedPostgres) -> None:
    """Connections that died in the pool are not held against the requests that come after."""
    await asyncio.gather(*(commit(embedded, CORPUS, put(f"d{n}", "x")) for n in range(8)))
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    answers = await asyncio.gather(*(embedded.catalog.document(CORPUS, f"d{n}", None) for n in range(8)))
    assert ["x"] * 8 == [answer.text for answer in answers]


LIMITED = "CREATE ROLE limited LOGIN CONNECTION LIMIT 0"


@pytest.mark.parametrize(("user", "name"), [("postgres", "nowhere"), ("nobody", "postgres"), ("limited", "postgres")])
async def test_a_ledger_that_lets_nobody_in(postgres_url: str, user: str, name: str) -> None:
    """An unknown database, an unknown user or too many connections: the same error on every way in."""
    if not await query(postgres_url, "SELECT 1 FROM pg_roles WHERE rolname = 'limited'"):
        await query(postgres_url, LIMITED)
    url = postgres_url.replace("postgres@/postgres?", f"{user}@/{name}?")
    database = Database(url)
    with pytest.raises(LedgerUnavailable):
        await database.fetch(text("SELECT 1"))
    with pytest.raises(LedgerUnavailable):
        async with database.own_connection():
            pass
    with pytest.raises(LedgerUnavailable):
        await check(url)
    await database.close()


async def test_an_error_that_is_an_answer_is_passed_on(database_url: str) -> None:
    """A statement that PostgreSQL refuses does not look like a ledger that is away."""
    database = Database(database_url)
    with pytest.raises(asyncpg.UndefinedTableError):
        await database.fetch(text("SELECT 1 FROM nowhere"))
    assert 1 == (await database.fetch(text("SELECT 1 AS n")))[0].n
    await database.close()


async def test_a_connection_lent_before_a_failure_is_not_kept_after_it(database_url: str) -> None:
    """One connection is cut off, and the pool begins anew. What was lent from the old pool at that moment goes back
    to nobody: it has to be closed, or it would stay open with nobody to use or to close it."""
    database = Database(database_url)
    async with database.autocommit() as lent:
        (row,) = await lent.fetch(text("SELECT pg_backend_pid() AS pid"))
        with pytest.raises(LedgerUnavailable):
            async with database.autocommit() as doomed:
                await doomed.fetch(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert row.pid == (await lent.fetch(text("SELECT pg_backend_pid() AS pid")))[0].pid
    await database.close()
    assert [] == await query(database_url, "SELECT pid FROM pg_stat_activity WHERE pid = $1", row.pid)
