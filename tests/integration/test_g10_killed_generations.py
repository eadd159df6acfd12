"""A server that builds, cuts over and retires generations is killed at random moments, and goes on where it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ragver import wire
from ragver.client import AsyncClient
from ragver.client.errors import ApiError
from ragver.client.retries import NO_RETRIES
from ragver.index.port import Collection
from ragver.types import Distance, GenerationState
from tests.support.generations import LARGER, SMALLER, built, check_generations
from tests.support.ledger import check_chain, query
from tests.support.server import running_server
from tests.support.services import CORPUS, SECRET, caught_up, open_test_services
from tests.support.spine import retrieve, texts

SEED = 7
KILL_S_MAX = 0.4
BEGUN_S_MAX = 60.0
DOCUMENTS = 2_000
LOOK_S = 0.05

Work = Callable[[AsyncClient, asyncio.Event], Awaitable[None]]
"""What to do, and an event for when it has got so far that a kill is of interest."""


class Killed:
    """A server that is started for each piece of work, and killed at a random moment of it."""

    def __init__(self, database_url: str, data_dir: Path) -> None:
        print(f"kills seed {SEED}")
        self._random = random.Random(SEED)
        self._stores = {"database_url": database_url, "secret_key": SECRET}
        self._data_dir = data_dir
        self.acknowledged: dict[str, str] = {}

    async def during(self, work: Work) -> None:
        with running_server(self._data_dir, **self._stores) as server:
            async with AsyncClient(server.url, retries=NO_RETRIES) as client:
                begun = asyncio.Event()
                doing = [asyncio.ensure_future(work(client, begun)), asyncio.create_task(self._write(client))]
                async with asyncio.timeout(BEGUN_S_MAX):
                    await begun.wait()
                await asyncio.sleep(self._random.uniform(0, KILL_S_MAX))
                server.process.kill()
                await asyncio.gather(*doing, return_exceptions=True)
            server.process.wait()

    async def _write(self, client: AsyncClient) -> None:
        while True:
            text = f"word{len(self.acknowledged)}"
            with suppress(ApiError):
                await client.put_document(CORPUS, text, wire.DocumentInput(text=text))
                self.acknowledged[text] = text
                continue
            return


async def build(client: AsyncClient, begun: asyncio.Event) -> None:
    """Begin what is not there yet, the one embedding when the other serves, or go on with it."""
    serving = (await client.corpus(CORPUS)).embedding
    other = SMALLER if serving.dimensions == LARGER["dimensions"] else LARGER
    generation = await client.begin_generation(CORPUS, embedding=wire.Embedding.model_validate(other))
    known = generation.embedded
    while (await client.generation(CORPUS, generation.id)).embedded == known < generation.chunks:  # noqa: ASYNC110 - polled
        await asyncio.sleep(LOOK_S / 10)
    begun.set()


async def cut_over(client: AsyncClient, begun: asyncio.Event) -> None:
    """Cut over to the other generation as soon as that can be done, back and forth."""
    while True:
        beside = [one for one in await client.generations(CORPUS) if one.state != "serving"]
        with suppress(ApiError):
            await client.cut_over(CORPUS, beside[0].id)
            begun.set()
        await asyncio.sleep(LOOK_S)


async def retire(client: AsyncClient, begun: asyncio.Event) -> None:
    for one in await client.generations(CORPUS):
        if one.state != "serving":
            await client.retire_generation(CORPUS, one.id)
    begun.set()


@pytest.mark.slow
async def test_g10_generations_go_on_after_kills(database_url: str, tmp_path: Path) -> None:
    """Whatever it was about: every acknowledged commit is in every generation, and nothing is left behind."""
    killed = Killed(database_url, tmp_path)
    async with open_test_services(database_url, tmp_path) as services:
        await services.catalog.create(wire.CorpusCreate(name=CORPUS, embedding=wire.Embedding.model_validate(LARGER)))
        texts_before = {f"old{number}": f"old{number}" for number in range(DOCUMENTS)}
        puts = [wire.Put(op="put", key=key, text=text) for key, text in texts_before.items()]
        await services.writer.commit(CORPUS, wire.CommitRequest(ops=list(puts)))
    killed.acknowledged |= texts_before
    for work in (build, build, cut_over, cut_over, retire, build):
        await killed.during(work)

    async with open_test_services(database_url, tmp_path, indexing=True) as services:
        await caught_up(services)
        for one in await services.generations.all_of(CORPUS):
            await built(services, one.id)
        states = await check_generations(services)
        assert [GenerationState.BUILDING, GenerationState.SERVING] == sorted(states)
        page = await services.catalog.documents(CORPUS, "", None, None, 10_000)
        assert killed.acknowledged.keys() <= {document.key for document in page.documents}
        newest = list(killed.acknowledged)[-1]
        assert [newest] == texts(await retrieve(services, query=newest, k=1))
        await check_chain(database_url, CORPUS)
        rows = await query(database_url, "SELECT collection, state FROM index_generation")
        for row in rows:
            there = await services.index.exists(Collection(row["collection"], 1, Distance.COSINE))
            assert there is (row["state"] != "retired"), dict(row)
