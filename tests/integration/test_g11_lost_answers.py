"""G11 as an application meets it: the server dies after it has applied a commit and before anybody hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragver import wire
from ragver.client import AsyncClient, Client, Retries
from tests.support.relay import Relay, relay_to
from tests.support.server import running_server

CORPUS = "handbook"
PATIENT = Retries(attempts_max=1_000, first_wait_s=0.1, wait_s_max=0.5)
PUT = {"op": "put", "key": "leave.md", "text": "Everyone has 30 days of leave."}


class Mortal:
    """A server behind a relay: killed as soon as it has answered, and then another on the same directory."""

    def __init__(self, data_dir: Path, relay: Relay, servers: ExitStack) -> None:
        self._data_dir = data_dir
        self._servers = servers
        self.relay = relay

    async def killed_after(self, ask: Callable[[], Awaitable[Any]], kill: Callable[[], None]) -> Any:
        """What comes of a call whose first answer dies with the server."""
        self.relay.instead = kill
        asking = asyncio.ensure_future(ask())
        await self.relay.lost.wait()
        another = await asyncio.to_thread(self._servers.enter_context, running_server(self._data_dir))
        self.relay.server = another.url
        return await asking


@asynccontextmanager
async def mortal(data_dir: Path) -> AsyncIterator[tuple[Mortal, Callable[[], None]]]:
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(ExitStack())
        first = await asyncio.to_thread(servers.enter_context, running_server(data_dir))
        relay = await stack.enter_async_context(relay_to(first.url))
        with Client(first.url) as client:
            client.create_corpus(CORPUS)
        yield Mortal(data_dir, relay, servers), first.process.kill


@pytest.mark.guarantee(11)
async def test_g11_a_commit_whose_answer_died_with_the_server_is_applied_once(data_dir: Path) -> None:
    """The client asks again by itself, with the key that it had sent, and is told what had been done."""
    async with mortal(data_dir) as (server, kill), AsyncClient(server.relay.url, retries=PATIENT) as client:
        ops = [wire.Put.model_validate(PUT)]
        result = await server.killed_after(lambda: client.commit(CORPUS, ops, reason="policy"), kill)

        assert (1, True) == (result.epoch, result.replayed)
        assert [(1, "policy")] == [(entry.epoch, entry.reason) for entry in await client.commits(CORPUS)]
        assert [1] == [version.version for version in await client.versions(CORPUS, "leave.md")]


@pytest.mark.guarantee(11)
async def test_g11_anomaly_without_a_key_a_lost_answer_becomes_a_second_commit(data_dir: Path) -> None:
    async with mortal(data_dir) as (server, kill), httpx.AsyncClient(base_url=server.relay.url) as http:

        async def stubborn() -> dict[str, Any]:
            while True:
                try:
                    answer = await http.post(f"/v1/corpora/{CORPUS}/commits", json={"ops": [PUT]}, timeout=30)
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                else:
                    told: dict[str, Any] = answer.json()
                    return told

        assert 2 == (await server.killed_after(stubborn, kill))["epoch"]
