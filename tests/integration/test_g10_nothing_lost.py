"""G10: `kill -9` of any process at any point loses no acknowledged commit, and the next start repairs the rest."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.embedded.datadir import DataDir
from ragver.embedded.postgres import EmbeddedPostgres
from ragver.embedded.postmaster import running
from ragver.indexer import Indexer
from ragver.ledger import generations
from ragver.telemetry import Metrics
from ragver.types import Epoch
from tests.support import history
from tests.support.child import child
from tests.support.ledger import check_chain, check_index
from tests.support.services import CORPUS, caught_up, make_corpus, open_test_services

pytestmark = pytest.mark.guarantee(10)

KILLS = 6
KILLS_OF_EVERYTHING = 3
POLL_S = 0.05
AFTER_ACKNOWLEDGEMENT_S_MAX = 0.02


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Seeded from RAGVER_TEST_SEED if that is set; a failure shows the seed."""
    seed = int(os.environ.get("RAGVER_TEST_SEED", random.randrange(2**32)))
    print(f"RAGVER_TEST_SEED={seed}")
    return random.Random(seed)


def acknowledged_before_kill(chance: random.Random, *arguments: str) -> list[int]:
    """What a writer acknowledged until it was killed at a random moment, perhaps before it had begun."""
    with child(history.WRITER, *arguments) as writer:
        acknowledged = []
        if commits := chance.choice([0, 1, 3, 10, 30]):
            assert writer.read() == "ready"
            acknowledged = [writer.read() for _ in range(commits)]
        _sleep(chance.uniform(0, AFTER_ACKNOWLEDGEMENT_S_MAX if commits else 3))
        writer.kill()
        # Its log is on the same output.
        return [int(line) for line in (*acknowledged, *writer.rest()) if line.isdigit()]


def _sleep(seconds: float) -> None:
    signal.sigtimedwait([], seconds)


async def head(services: Services) -> int:
    return (await services.catalog.corpus(CORPUS)).head


@pytest.mark.slow
async def test_g10_a_writer_killed_again_and_again(database_url: str, tmp_path: Path, chance: random.Random) -> None:
    """A process that writes and indexes is killed at random moments, its index lost twice in between. Every
    acknowledged commit is there, no commit is there in part, and the index becomes equal to the ledger."""
    directory = tmp_path / "data"
    async with open_test_services(database_url, directory) as services:
        await make_corpus(services)

    acknowledged: list[int] = []
    for number in range(KILLS):
        acknowledged += await asyncio.to_thread(acknowledged_before_kill, chance, str(directory), database_url)
        if number in (2, 4):
            shutil.rmtree(DataDir(directory).index)

    async with open_test_services(database_url, directory, indexing=True) as services:
        commits = await history.check(services)
        assert acknowledged == sorted(set(acknowledged)), "each epoch is acknowledged once"
        assert set(acknowledged) <= set(range(1, commits + 1))
        assert commits - len(acknowledged) <= KILLS, "of each writer one commit at most is unacknowledged"
        assert commits == await check_chain(database_url, CORPUS)
        assert commits == (await caught_up(services)).applied_epoch
        assert await check_index(services, CORPUS) > commits


@pytest.mark.slow
async def test_g10_everything_killed_at_once(data_dir: Path, chance: random.Random) -> None:
    """The process and the embedded PostgreSQL die together, like in a power cut that spares the disks."""
    async with open_test_services(None, data_dir) as services:
        await make_corpus(services)
    acknowledged: list[int] = []
    for _ in range(KILLS_OF_EVERYTHING):
        acknowledged += await asyncio.to_thread(acknowledged_before_kill, chance, str(data_dir))
        if (server := running(DataDir(data_dir).postgres)) is not None:
            os.kill(server.pid, signal.SIGKILL)
    try:
        async with open_test_services(None, data_dir, indexing=True) as services:
            commits = await history.check(services)
            assert set(acknowledged) <= set(range(1, commits + 1))
            assert commits == await check_chain(services.database.url, CORPUS)
            await caught_up(services)
            await check_index(services, CORPUS)
    finally:
        EmbeddedPostgres(DataDir(data_dir).postgres).stop()


# ── the indexer's steps, each the last one before a crash ────────────────────────────────────────────────────


class Crash(BaseException):
    """The end of the process, as far as the indexer can tell."""


class Crashing:
    """An index whose process dies in one of its calls: before the call has an effect, or right after."""

    def __init__(self, index: Any, call: str, *, after: bool) -> None:
        self._index = index
        self._call = call
        self._after = after

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._index, name)
        return self._dying(original) if name == self._call else original

    def _dying(self, original: Any) -> Any:
        async def call(*arguments: Any, **more: Any) -> None:
            if self._after:
                await original(*arguments, **more)
            raise Crash

        return call


def indexer(services: Services, index: Any) -> Indexer:
    return Indexer(services.database, index, services.builder, SystemClock(), POLL_S, Metrics())


async def crashed(services: Services, index: Any) -> None:
    with pytest.raises(Crash):
        await indexer(services, index).run()


async def repaired(services: Services) -> None:
    """Let an indexer that does not crash catch up."""
    task = asyncio.create_task(indexer(services, services.index).run())
    await caught_up(services)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["ensure", "upsert", "mark_dead", "refresh_payload"])
async def test_g10_an_indexer_that_dies_between_two_steps(
    database_url: str, tmp_path: Path, call: str, after: bool
) -> None:
    """Wherever the indexer dies, first on an empty index and then on a filled one, the next one completes it."""
    async with open_test_services(database_url, tmp_path) as services:
        await make_corpus(services)
        for commits in (5, 10):
            while await head(services) < commits:
                await history.write(services, await head(services) + 1)
            await crashed(services, Crashing(services.index, call, after=after))
            assert (await services.catalog.corpus(CORPUS)).applied_epoch < commits
            await repaired(services)
            await check_index(services, CORPUS)


async def test_g10_a_lost_index_starts_again_at_nothing(database_url: str, tmp_path: Path) -> None:
    """When the index's files are gone, the applied epoch goes back to 0 and everything comes from the ledger."""
    async with open_test_services(database_url, tmp_path) as services:
        await make_corpus(services)
        for number in range(1, 6):
            await history.write(services, number)
        await repaired(services)
    shutil.rmtree(DataDir(tmp_path).index)
    async with open_test_services(database_url, tmp_path) as services:
        assert 5 == (await services.catalog.corpus(CORPUS)).applied_epoch
        await crashed(services, Crashing(services.index, "upsert", after=False))
        assert 0 == (await services.catalog.corpus(CORPUS)).applied_epoch
        await repaired(services)
        assert await check_index(services, CORPUS) > 5


async def test_g10_anomaly_applied_said_before_it_is_so(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An indexer that advances the applied epoch first and dies then leaves a hole that nobody fills."""
    async with open_test_services(database_url, tmp_path) as services:
        await make_corpus(services)
        await history.write(services, 1)
        await history.write(services, 2)

        async def advance_first(self: Indexer, standing: generations.Standing, found: object) -> None:
            (progress,) = self._progress.values()
            await generations.advance(services.database, progress.leadership, Epoch(2))
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(Indexer, "apply", advance_first)
            await crashed(services, services.index)
        await repaired(services)

        with pytest.raises(AssertionError):
            await check_index(services, CORPUS)
