"""Whatever the index server does wrong: no epoch is skipped or overstated, and no answer is wrong without an error.

A small Qdrant server goes wrong under the real indexer and the real retrieval. Meanwhile commits go on, each strong
retrieval is held against what was committed, and a watcher compares the index with the ledger up to the applied epoch.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ragver import indexer, wire
from ragver.bootstrap import Services
from ragver.errors import IndexLagging, IndexUnavailable, IndexUnsupported
from ragver.index import qdrant, retrying
from ragver.index.qdrant import QdrantIndex
from tests.support.ledger import check_chain, check_index
from tests.support.qdrant_wire import (
    SEARCHES,
    WRITES,
    Trouble,
    WireServer,
    first,
    healthy,
    mixed,
    wire_server,
)
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
from tests.support.spine import EXTERNAL, chunk, collection, retrieve, texts

TIMEOUT_S = 0.3
DELAY_S = 0.4
FAULTS = retrying.ATTEMPTS_MAX + 1
"""Enough that the adapter gives up once."""
COMMITS = 6
LOOK_S = 0.01
KEYS = [f"doc-{number}" for number in range(6)]
LABELS = ["*", "group:hr", "user:ada"]

_APPLIED = """
    SELECT g.applied_epoch FROM index_generation g JOIN corpus c ON c.id = g.corpus_id WHERE c.name = $1
"""
_TOUCHED = """
    SELECT k.id, k.died_epoch, k.touched_epoch, d.acl
    FROM chunk k JOIN corpus c ON c.id = k.corpus_id
    JOIN document d ON d.corpus_id = k.corpus_id AND d.id = k.document_id
    WHERE c.name = $1 AND k.born_epoch <= $2
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    monkeypatch.setattr(indexer, "RETRY_S", 0.02)
    monkeypatch.setattr(indexer, "CHECK_S", 0.05)
    monkeypatch.setattr(retrying, "PAUSE_S_FIRST", 0.005)
    with wire_server(tmp_path / "wire", DELAY_S) as server:
        yield server


@pytest.fixture
async def services(server: WireServer, database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """The services on the server, their indexer running, with a corpus that is indexed."""
    settings: dict[str, Any] = {
        "qdrant_url": server.url,
        "qdrant_timeout_s": TIMEOUT_S,
        "qdrant_write_timeout_s": TIMEOUT_S,
    }
    async with open_test_services(database_url, tmp_path / "data", indexing=True, **settings) as opened:
        await make_corpus(opened, embedding=EXTERNAL)
        yield opened


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("RAGVER_TEST_SEED", random.randrange(2**32)))
    print(f"RAGVER_TEST_SEED={seed}")
    return random.Random(seed)


# ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Story:
    """Commits of any kind, and what a reader must see of them."""

    services: Services
    chance: random.Random
    commits: int = 0
    right: int = 0
    loud: int = 0
    _live: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    async def go_on(self, commits: int) -> None:
        for _ in range(commits):
            keys = self.chance.sample(KEYS, self.chance.randint(1, 3))
            await commit(self.services, CORPUS, *map(self._op, keys))
            self.commits += 1
            await self.read()

    async def leave_one_alone(self) -> None:
        """A document for everybody that no later commit touches: once applied, no answer is whole without the index."""
        self._live["alone"] = ("nobody touches this", ["*"])
        await commit(self.services, CORPUS, put("alone", chunks=[chunk("nobody touches this", 0)], acl=["*"]))
        self.commits += 1

    async def read(self) -> None:
        """A strong retrieval is right, or an error that says that the index is away or behind."""
        principals = self.chance.choice([[], ["group:hr"], ["user:ada", "group:hr"]])
        try:
            answer = await retrieve(self.services, principals=principals)
        except (IndexUnavailable, IndexLagging):
            self.loud += 1
            return
        self.right += 1
        readable = {text for text, acl in self._live.values() if {"*", *principals} & set(acl)}
        assert sorted(readable) == sorted(texts(answer))

    def _op(self, key: str) -> wire.Operation:
        kind = self.chance.choice(["put", "put", "delete", "set_acl"])
        acl = sorted(self.chance.sample(LABELS, self.chance.randint(1, 2)))
        if key not in self._live or kind == "put":
            text = f"{key} {self.chance.random()}"
            self._live[key] = (text, acl)
            return put(key, chunks=[chunk(text, self.chance.randrange(100))], acl=acl)
        if kind == "delete":
            del self._live[key]
            return delete(key)
        self._live[key] = (self._live[key][0], acl)
        return set_acl(key, *acl)


class Watch:
    """Looks, past all faults, whether the index holds what the applied epoch says."""

    def __init__(self, services: Services, server: WireServer, ledger: Any, name: str) -> None:
        self._server = server
        self._ledger = ledger
        self._name = name
        self.looks = 0
        self.overstated: list[str] = []

    async def look(self) -> None:
        applied = await self._ledger.fetchval(_APPLIED, CORPUS)
        rows = await self._ledger.fetch(_TOUCHED, CORPUS, applied)
        points = self._server.points(self._name)
        self.looks += 1
        for row in rows:
            self._compare(row, points.get(row["id"]), applied)

    def _compare(self, row: Any, point: dict[str, Any] | None, applied: int) -> None:
        # The index may have gone on since the rows were read; it must not be behind what it is said to hold.
        said = row["touched_epoch"] <= applied
        if point is None:
            self.overstated.append(f"chunk {row['id']} is missing at applied epoch {applied}")
        elif said and row["died_epoch"] not in (None, point.get("died_epoch")):
            self.overstated.append(f"chunk {row['id']} is not marked dead at applied epoch {applied}")
        elif said and row["died_epoch"] is None and point["touched_epoch"] < row["touched_epoch"]:
            self.overstated.append(f"chunk {row['id']} has old labels at applied epoch {applied}")

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def next_look(self) -> None:
        """Return once a look that began after this call has ended."""
        until = self.looks + 2
        while self.looks < until:  # noqa: ASYNC110 - an event could be missed between two looks
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def watching(services: Services, server: WireServer) -> AsyncIterator[Watch]:
    """Watch until the end of the block."""
    ledger = await asyncpg.connect(services.database.url)
    watch = Watch(services, server, ledger, (await collection(services)).name)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await ledger.close()
    assert watch.looks > 0


async def require_recovered(services: Services, story: Story) -> None:
    """Everything acknowledged is in the index, and reads are right again."""
    await caught_up(services)
    assert story.commits == await check_chain(services.database.url, CORPUS)
    await check_index(services, CORPUS)
    loud = story.loud
    await story.read()
    assert loud == story.loud


# ── the faults ──────────────────────────────────────────────────────────────────────────────────────────────


# Of those that are one to the adapter, one is enough.
TROUBLED_SEARCHES = [Trouble.RESET, Trouble.DELAY, Trouble.LIMIT, Trouble.OVERLOAD, Trouble.KEY]


@pytest.mark.parametrize(
    ("trouble", "calls"),
    [
        *[pytest.param(trouble, WRITES, id=f"{trouble} writes") for trouble in Trouble],
        *[pytest.param(trouble, SEARCHES, id=f"{trouble} searches") for trouble in TROUBLED_SEARCHES],
    ],
)
async def test_after_a_fault_nothing_is_skipped_overstated_or_wrong(
    services: Services, server: WireServer, chance: random.Random, trouble: Trouble, calls: str
) -> None:
    story = Story(services, chance)
    await story.go_on(3)
    await caught_up(services)
    async with watching(services, server) as watch:
        # The pause that is asked for is waited for in earnest; once is enough.
        server.faults = first(1 if trouble is Trouble.LIMIT_UNTIL else FAULTS, trouble, calls)
        await story.go_on(COMMITS)
        await require_recovered(services, story)

    assert watch.overstated == []
    assert story.right > 0


@pytest.mark.parametrize("share", [0.1, 0.4])
async def test_a_server_that_keeps_going_wrong_is_got_along_with(
    services: Services, server: WireServer, chance: random.Random, share: float
) -> None:
    story = Story(services, chance)
    async with watching(services, server) as watch:
        server.faults = mixed(chance.random, set(Trouble) - {Trouble.DELAY}, share)
        await story.go_on(5 * COMMITS)
        server.faults = healthy
        await require_recovered(services, story)

    assert watch.overstated == []


async def test_a_server_that_is_away_makes_reads_fail_and_nothing_else(
    services: Services, server: WireServer, chance: random.Random
) -> None:
    """Commits go on; what they did is applied when the server is back."""
    story = Story(services, chance)
    await story.leave_one_alone()
    await story.go_on(3)
    await caught_up(services)
    async with watching(services, server) as watch:
        server.stop()
        right = story.right
        await story.go_on(3)
        assert right == story.right
        server.start()
        await require_recovered(services, story)

    assert watch.overstated == []


async def test_a_server_that_comes_back_empty_is_filled_again(
    services: Services, server: WireServer, chance: random.Random
) -> None:
    """Reads fail until the indexer has said in the ledger that nothing is applied; from then on they are right."""
    story = Story(services, chance)
    await story.leave_one_alone()
    await story.go_on(COMMITS)
    await caught_up(services)

    server.forget()
    # The collection is there long before it can be filled.
    server.faults = first(2, Trouble.DELAY, r"PUT /collections/[^/]+/index$")
    async with asyncio.timeout(CATCH_UP_S_MAX):
        while server.points((await collection(services)).name) == {}:
            await story.read()
    await require_recovered(services, story)

    assert story.loud > 0


async def led(services: Services) -> None:
    """Return once the indexer has made the collection and stamped it: its next write is of a chunk."""
    where = await collection(services)
    assert isinstance(services.index, qdrant.QdrantIndex)
    async with asyncio.timeout(CATCH_UP_S_MAX):
        while True:
            if await services.index.exists(where) and await services.index.stamped(where):
                return
            await asyncio.sleep(0.01)


async def test_without_the_count_a_lost_write_is_taken_for_applied(
    services: Services, server: WireServer, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly, with the mechanism switched off: the server's word alone does not bear an applied epoch."""

    async def believed(
        self: QdrantIndex, collection: Any, what: str, write: Any, concerned: Any, expected: int
    ) -> None:
        await self._server.write(what, write)

    monkeypatch.setattr(qdrant.QdrantIndex, "_write", believed)
    async with watching(services, server) as watch:
        await led(services)
        server.faults = first(1, Trouble.LOSE, WRITES)
        await commit(services, CORPUS, put("doc", chunks=[chunk("a text", 1)]))
        await caught_up(services)
        await watch.next_look()

    assert watch.overstated != []


async def test_services_do_not_start_on_a_server_that_is_too_old(
    server: WireServer, database_url: str, tmp_path: Path
) -> None:
    server.version = "1.16.3"

    with pytest.raises(IndexUnsupported, match="upgrade it to 1"):
        async with open_test_services(database_url, tmp_path / "data", qdrant_url=server.url):
            raise AssertionError("they started")
