"""Any number of processes on one ledger and one index server: one leads, any may take over, a late one does no harm."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.client import AsyncClient
from ragver.index.port import Collection, Index
from ragver.ledger import generations
from ragver.ledger.generations import LEADER_LOCK_CLASS, Elections, Leadership
from ragver.types import CorpusId, Decision, GenerationId, Scope
from tests.support import history
from tests.support.ledger import check_index, query
from tests.support.qdrant_wire import Trouble, WireServer, wire_server
from tests.support.replicas import Replica, replica
from tests.support.services import (
    CATCH_UP_S_MAX,
    CORPUS,
    caught_up,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    set_acl,
)
from tests.support.spine import (
    EXTERNAL,
    Step,
    Watched,
    chunk,
    collection,
    index_all,
    indexer_of,
    retrieve,
    texts,
)

UPSERTS = r"PUT /collections/[^/]+/points$"
PAYLOADS = r"POST /collections/[^/]+/points/payload$"

ASKED = wire.RetrieveRequest(query="anything", k=20)

_GENERATION = "SELECT applied_epoch, leader_term FROM index_generation"
_LEADERS = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WireServer]:
    with wire_server(tmp_path / "wire") as server:
        yield server


@pytest.fixture
async def observer(server: WireServer, database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """The services of this process, which does not index."""
    async with open_test_services(database_url, tmp_path / "observer", qdrant_url=server.url) as services:
        await make_corpus(services)
        yield services


@pytest.fixture
async def replicas(observer: Services, server: WireServer, tmp_path: Path) -> AsyncIterator[list[Replica]]:
    """Three processes; the first of them leads."""
    url = observer.database.url
    with ExitStack() as stack:
        started = []
        for number in range(3):
            started.append(stack.enter_context(replica(tmp_path / f"replica-{number}", url, server.url)))
            await led(observer)
        yield started


@pytest.fixture
async def clients(replicas: list[Replica]) -> AsyncIterator[list[AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(AsyncClient(one.url)) for one in replicas]


async def leaders(services: Services) -> list[int]:
    """The backends of the connections that hold a leader's lock."""
    return [row["pid"] for row in await query(services.database.url, _LEADERS, LEADER_LOCK_CLASS)]


async def led(services: Services) -> None:
    """Return once somebody leads."""
    async with asyncio.timeout(CATCH_UP_S_MAX):
        while True:
            if await leaders(services):
                return
            await asyncio.sleep(0.01)


async def generation(services: Services) -> tuple[int, int]:
    """Applied epoch and term."""
    ((applied, term),) = await query(services.database.url, _GENERATION)
    return applied, term


async def write(client: AsyncClient, number: int) -> None:
    """Commit `number` of the history, through one of the processes."""
    result = await client.commit(CORPUS, history.operations(number), idempotency_key=f"commit-{number}")
    assert number == result.epoch


async def end_leadership(services: Services) -> None:
    """End the sessions that hold a leader's lock, and wait for their end."""
    await query(
        services.database.url, f"SELECT pg_terminate_backend(pid, 10000) FROM ({_LEADERS}) AS l", LEADER_LOCK_CLASS
    )


async def verdict(client: AsyncClient, snapshot: str) -> Decision:
    """On everything that the snapshot showed."""
    request = wire.ValidateRequest(snapshot=snapshot, scope=Scope.CONTEXT)
    return (await client.validate(CORPUS, request)).verdict


def found(answer: wire.RetrieveResponse) -> list[str]:
    """The keys of the documents that were found."""
    return sorted(hit.document.key for hit in answer.hits)


class Struck:
    """Sends a signal to a process while one of its writes to the index is under way."""

    def __init__(self, process: Replica, number: signal.Signals, calls: str, trouble: Trouble | None) -> None:
        self._pid = process.process.pid
        self._number = number
        self._calls = calls
        self._trouble = trouble
        self.done = threading.Event()

    def __call__(self, call: str) -> Trouble | None:
        if self.done.is_set() or not re.match(self._calls, call):
            return None
        os.kill(self._pid, self._number)
        self.done.set()
        return self._trouble

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.done.wait, CATCH_UP_S_MAX)


async def test_what_one_commits_all_others_know_at_once(clients: list[AsyncClient]) -> None:
    """Through whichever process a commit goes: the next strong read of every other has it, and the next verdict."""
    for number in range(3):
        writer, reader = clients[number], clients[(number + 1) % 3]
        epoch = (await writer.commit(CORPUS, [put("a", f"number {number}"), put("b", "the same")])).epoch
        answers = [await client.retrieve(CORPUS, ASKED) for client in clients]
        assert [(epoch, ["a", "b"])] * 3 == [(answer.epoch, found(answer)) for answer in answers]
        assert [Decision.PASS] * 3 == [await verdict(client, answers[number].snapshot) for client in clients]
        await reader.delete_document(CORPUS, "a")
        assert [Decision.REJECT] * 3 == [await verdict(client, answers[number].snapshot) for client in clients]
        assert [["b"]] * 3 == [found(await client.retrieve(CORPUS, ASKED)) for client in clients]


async def test_killed_leaders_are_followed_by_others(
    replicas: list[Replica], clients: list[AsyncClient], observer: Services, server: WireServer
) -> None:
    """`kill -9` of the leader amid a write, then of a second process: whoever is left completes the index."""
    _, first_term = await generation(observer)
    server.faults = struck = Struck(replicas[0], signal.SIGKILL, UPSERTS, None)
    for number in range(1, 6):
        await write(clients[1], number)
    await struck.wait()
    replicas[0].kill()
    await caught_up(observer)
    _, second_term = await generation(observer)
    assert second_term > first_term
    assert await check_index(observer, CORPUS) > 5

    for number in range(6, 11):
        await write(clients[1], number)
    replicas[1].kill()
    for number in range(11, 16):
        await write(clients[2], number)
    await caught_up(observer)
    assert await check_index(observer, CORPUS) > 15
    assert 1 == len(await leaders(observer))
    assert 15 == (await clients[2].retrieve(CORPUS, ASKED)).epoch


@pytest.mark.parametrize("trouble", [None, Trouble.RESET], ids=["applied", "still to do"])
@pytest.mark.parametrize("calls", [UPSERTS, PAYLOADS], ids=["upsert", "payload"])
async def test_a_paused_leader_that_wakes_up_late(
    replicas: list[Replica],
    clients: list[AsyncClient],
    observer: Services,
    server: WireServer,
    calls: str,
    trouble: Trouble | None,
) -> None:
    """Stopped amid a write, and gone on when another one leads and all it was about to write is out of date.

    A stopped process keeps its sessions: its kernel goes on acknowledging, so PostgreSQL cannot tell it from one
    that thinks. Its lock has to be taken from it by ending that session: PostgreSQL does so after a long silence,
    and here the test, which does not wait for that. Its other connections stay, so it can still try to advance:
    only the term forbids it.
    """
    await clients[1].commit(CORPUS, [put("a", "first"), put("b", "second")])
    await caught_up(observer)
    applied, first_term = await generation(observer)

    server.faults = struck = Struck(replicas[0], signal.SIGSTOP, calls, trouble)
    await clients[1].commit(CORPUS, [set_acl("a", "group:hr"), delete("b"), put("c", "third")])
    await struck.wait()
    assert ["c"] == found(await clients[1].retrieve(CORPUS, ASKED))
    assert (applied, first_term) == await generation(observer)

    await end_leadership(observer)
    await clients[2].commit(CORPUS, [set_acl("a", "*"), delete("c"), put("d", "fourth")])
    await caught_up(observer)
    standing = await generation(observer)
    assert standing[1] > first_term
    await check_index(observer, CORPUS)

    replicas[0].go_on()
    await asyncio.to_thread(replicas[0].said, "indexer_waits")
    assert standing == await generation(observer)
    await check_index(observer, CORPUS)
    assert [["a", "d"]] * 3 == [found(await client.retrieve(CORPUS, ASKED)) for client in clients]

    await clients[0].commit(CORPUS, [delete("a")])
    await caught_up(observer)
    await check_index(observer, CORPUS)
    assert [["d"]] * 3 == [found(await client.retrieve(CORPUS, ASKED)) for client in clients]


# ── between two leaders ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def filled(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """A corpus of one commit that is indexed, and nobody who leads."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
        await index_all(services)
        yield services


async def test_a_leader_begins_where_the_one_before_ended(filled: Services) -> None:
    """The applied epoch went back between the look at all generations and the election; it is not what was seen."""
    (seen,) = await generations.all_of(filled.database)
    place = await collection(filled)
    async with generations.elections(filled.database) as before:
        leadership = await before.lead(seen.corpus, seen.generation.generation_id)
        assert leadership is not None
        await filled.index.drop(place)
        assert await generations.reset(filled.database, leadership)
        await filled.index.ensure(place)
    indexer = indexer_of(filled)
    async with generations.elections(filled.database) as elections:
        await indexer._step(elections, seen)
        await commit(filled, CORPUS, put("b", chunks=[chunk("b1", 2)]))
        (now,) = await generations.all_of(filled.database)
        assert await indexer._step(elections, now)
    assert 2 == (await generation(filled))[0]
    assert 2 == await check_index(filled, CORPUS)
    assert ["a1", "b1"] == texts(await retrieve(filled))


async def elected(elections: Elections, corpus: CorpusId, generation: GenerationId) -> Leadership:
    """Stand until nobody else leads."""
    async with asyncio.timeout(CATCH_UP_S_MAX):
        while True:
            leadership = await elections.lead(corpus, generation)
            if leadership is not None:
                return leadership
            await asyncio.sleep(0.01)


async def test_a_silent_leader_loses_its_lock(filled: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody ends its session: PostgreSQL does, once it has been silent for too long."""
    monkeypatch.setattr(generations, "LEADER_SILENCE_S_MAX", 1.0)
    (seen,) = await generations.all_of(filled.database)
    of = (seen.corpus, seen.generation.generation_id)
    async with generations.elections(filled.database) as silent:
        silenced = await silent.lead(*of)
        assert silenced is not None
        monkeypatch.undo()
        async with generations.elections(filled.database) as present:
            leadership = await elected(present, *of)
            assert leadership.term > silenced.term
            assert not await generations.reset(filled.database, silenced)


class Overtaken(Watched):
    """An index in which the process that looks for a collection is paused before it has its answer."""

    def __init__(self, inner: Index, meanwhile: Step) -> None:
        super().__init__(inner)
        self._meanwhile = meanwhile

    async def exists(self, collection: Collection) -> bool:
        there = await super().exists(collection)
        await self._meanwhile()
        return there


async def test_a_late_leader_does_not_make_a_lost_collection(filled: Services) -> None:
    """Made by one whose term is over, an empty collection would look to the next leader like the full one."""
    (seen,) = await generations.all_of(filled.database)
    place = await collection(filled)
    await filled.index.drop(place)
    async with generations.elections(filled.database) as late, generations.elections(filled.database) as present:

        async def another_leads() -> None:
            await end_leadership(filled)
            assert await present.lead(seen.corpus, seen.generation.generation_id) is not None

        paused = indexer_of(replace(filled, index=Overtaken(filled.index, another_leads)))
        assert not await paused._step(late, seen)
        assert not await filled.index.exists(place)
        assert seen.applied == (await generation(filled))[0]
        await indexer_of(filled)._step(present, seen)
    assert 1 == await check_index(filled, CORPUS)
