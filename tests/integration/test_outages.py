"""A running server while one of its stores is away: what needs it fails loudly, all else goes on, and so does it
when the store is back, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.client import NO_RETRIES, ApiError, AsyncClient
from ragver.embedded.postgres import EmbeddedPostgres
from ragver.ledger.migrations import migrate
from ragver.types import CitationStatus, Decision, Policy, Scope
from tests.support.ledger import check_index
from tests.support.postgres import FORGETFUL
from tests.support.qdrant_wire import WireServer, wire_server
from tests.support.replicas import replica
from tests.support.services import CORPUS, caught_up, delete, open_test_services, put

pytestmark = pytest.mark.guarantee(13)

BACK_S_MAX = 30.0
LOOK_S = 0.02
QUESTION = "what is said"
GOOD = wire.Readiness(status="ok", ledger="ok", index="ok")

Ask = Callable[[], Awaitable[Any]]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WireServer]:
    """An index server that the test may stop."""
    with wire_server(tmp_path / "wire") as server:
        yield server


@pytest.fixture
def ledger(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that the test may stop."""
    server = EmbeddedPostgres(data_dir / "postgres", FORGETFUL)
    yield server
    server.stop()


@asynccontextmanager
async def serving(database_url: str, index: WireServer, directory: Path) -> AsyncIterator[AsyncClient]:
    """A server in a process of its own, with one document that is indexed and one corpus without a commit."""
    with replica(directory, database_url, index.url) as process:
        async with AsyncClient(process.url, retries=NO_RETRIES) as client:
            for name in (CORPUS, "young"):
                await client.create_corpus(wire.CorpusCreate(name=name))
            await client.commit(CORPUS, [put("a", "first")])
            await applied(client)
            yield client


@asynccontextmanager
async def observing(database_url: str, index: WireServer, directory: Path) -> AsyncIterator[Services]:
    """The services of this process, to look at both stores with."""
    async with open_test_services(database_url, directory, qdrant_url=index.url) as services:
        yield services


async def applied(client: AsyncClient) -> None:
    """Return once the index has all commits."""
    async with asyncio.timeout(BACK_S_MAX):
        while True:
            corpus = await client.corpus(CORPUS)
            if corpus.applied_epoch == corpus.head:
                return
            await asyncio.sleep(LOOK_S)


async def back(ask: Ask, code: str) -> Any:
    """The answer, asked for again as long as it is that a store is away."""
    async with asyncio.timeout(BACK_S_MAX):
        while True:
            try:
                return await ask()
            except ApiError as error:
                if (error.code, error.status, error.retryable) != (code, 503, True):
                    raise
            await asyncio.sleep(LOOK_S)


async def away(ask: Ask, code: str) -> None:
    """The answer is that the store is away, and that one may try again."""
    with pytest.raises(ApiError) as raised:
        await ask()
    assert (code, 503, True) == (raised.value.code, raised.value.status, raised.value.retryable)


async def strong(client: AsyncClient, corpus: str = CORPUS) -> wire.RetrieveResponse:
    return await client.retrieve(corpus, wire.RetrieveRequest(query=QUESTION))


def keys(answer: wire.RetrieveResponse) -> list[str]:
    return sorted(hit.document.key for hit in answer.hits)


async def check(client: AsyncClient, snapshot: str, policy: Policy = Policy.STRICT) -> wire.ValidateResponse:
    return await client.validate(
        CORPUS, wire.ValidateRequest(snapshot=snapshot, scope=Scope.CONTEXT, policy=policy, answer="")
    )


async def first_followed(client: AsyncClient, since: int) -> wire.CommitEntry:
    async for entry in client.follow(CORPUS, since=since):
        return entry
    raise AssertionError("the feed ended")


@pytest.mark.parametrize("comes_back", ["as it was", "empty"])
async def test_the_index_goes_away_and_comes_back(
    database_url: str, index: WireServer, tmp_path: Path, comes_back: str
) -> None:
    """Writes, verdicts, documents and the feed go on without it, and a strong read where the tail is everything."""
    async with serving(database_url, index, tmp_path / "data") as client:
        before = await strong(client)
        assert GOOD == await client.ready()

        await asyncio.to_thread(index.stop)
        assert wire.Readiness(status="unavailable", ledger="ok", index="index_unavailable") == await client.ready()
        assert 2 == (await client.commit(CORPUS, [put("b", "second")])).epoch
        assert Decision.PASS is (await check(client, before.snapshot)).verdict
        assert "second" == (await client.document(CORPUS, "b")).text
        assert [1, 2] == [entry.epoch for entry in await client.commits(CORPUS)]
        assert 2 == (await first_followed(client, 1)).epoch
        await away(lambda: strong(client), "index_unavailable")
        await client.commit(CORPUS, [delete("a")])
        # What the index holds is dead, so the ledger has the whole answer.
        rest = await strong(client)
        assert (["b"], 2) == (keys(rest), rest.tail)
        assert [CitationStatus.DELETED] == [one.status for one in (await check(client, before.snapshot)).citations]
        # Nothing of it is applied at all.
        await client.commit("young", [put("c", "third")])
        young = await strong(client, "young")
        assert (["c"], 1) == (keys(young), young.tail)

        await asyncio.to_thread(index.start if comes_back == "as it was" else index.forget)
        await client.commit(CORPUS, [put("d", "fourth")])
        assert ["b", "d"] == keys(await back(lambda: strong(client), "index_unavailable"))
        await applied(client)
        assert GOOD == await client.ready()
        assert ["b", "d"] == keys(await strong(client))
        async with observing(database_url, index, tmp_path / "observer") as services:
            for corpus in (CORPUS, "young"):
                await caught_up(services, corpus)
                await check_index(services, corpus)


async def test_the_ledger_goes_away_and_comes_back(ledger: EmbeddedPostgres, index: WireServer, tmp_path: Path) -> None:
    """Without it nothing is answered: no read, no check of any policy, no write. Then all is, by the same process."""
    database_url = await asyncio.to_thread(ledger.start)
    await migrate(database_url)
    async with serving(database_url, index, tmp_path / "data") as client:
        before = await strong(client)

        await asyncio.to_thread(ledger.stop)
        assert wire.Readiness(status="unavailable", ledger="ledger_unavailable", index="ok") == await client.ready()
        asks: list[Ask] = [
            lambda: strong(client),
            lambda: check(client, before.snapshot),
            lambda: check(client, before.snapshot, Policy.FLAG),
            lambda: check(client, before.snapshot, Policy.REDACT),
            lambda: client.document(CORPUS, "a"),
            lambda: client.commits(CORPUS),
            lambda: client.commit(CORPUS, [delete("a")]),
        ]
        for ask in asks:
            await away(ask, "ledger_unavailable")

        assert database_url == await asyncio.to_thread(ledger.start)
        assert Decision.PASS is (await back(lambda: check(client, before.snapshot), "ledger_unavailable")).verdict
        assert GOOD == await client.ready()
        # The indexer has lost its session and stands for election again.
        await client.commit(CORPUS, [put("a", "second")])
        await applied(client)
        assert ["second"] == [hit.text for hit in (await strong(client)).hits]
        assert Decision.REJECT is (await check(client, before.snapshot)).verdict
        async with observing(database_url, index, tmp_path / "observer") as services:
            assert 2 == await check_index(services, CORPUS)
