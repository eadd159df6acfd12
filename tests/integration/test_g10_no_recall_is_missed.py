"""G10 of recalls: who follows them misses no delivered answer, however recording, commits and reading interleave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ragver.answers import Answers
from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.errors import AnswersUnsettled
from ragver.ledger import answers
from ragver.ledger.database import Connection, Database
from ragver.ledger.recalls import Position
from ragver.recalls import position_of
from ragver.types import CorpusId, Decision, Epoch, Scope
from tests.support.answers import recorded
from tests.support.ledger import waits_for_a_lock
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, chunk, second_process

pytestmark = pytest.mark.guarantee(10)

COMMITS = 40
RECORDERS = 3


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, put("a", chunks=[chunk("a", 1)]))
        yield services


class Hesitant(Database):
    """A recorder's connection to the ledger: its transactions commit when the test says so."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.written, self.go = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with super().transaction() as connection:
            yield connection
            self.written.set()
            await self.go.wait()


@asynccontextmanager
async def hesitant(services: Services) -> AsyncIterator[tuple[Services, Hesitant]]:
    """Another process, whose recordings take until the test says so."""
    other = await second_process(services)
    database = Hesitant(services.database.url)
    kept = Answers(database, other.views, other.validation, SystemClock(), other.metrics)
    try:
        yield replace(other, answers=kept), database
    finally:
        await database.close()


async def followed(services: Services, position: Position) -> tuple[list[tuple[int, str]], Position]:
    """The recalls after a position, and the position behind them."""
    page = await services.recalls.page(CORPUS, position, Scope.CITED, 1_000)
    return [(one.epoch, one.answer_id) for one in page.recalls], position_of(page.next_cursor)


async def test_g10_a_follower_waits_for_what_is_being_recorded(stopped: Services) -> None:
    """The answer is written but not committed; what it cites dies; whoever reads recalls then waits, and sees it."""
    async with hesitant(stopped) as (recorder, database):
        recording = asyncio.create_task(recorded(recorder, answer_id="one"))
        await database.written.wait()
        await commit(stopped, CORPUS, delete("a"))
        following = asyncio.create_task(followed(stopped, Position(Epoch(0))))
        await waits_for_a_lock(stopped.database.url)
        database.go.set()
        await recording
        assert [(2, "one")] == (await following)[0]


async def test_g10_anomaly_a_follower_that_does_not_wait_misses_a_recall(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with the wait taken away: the epoch is passed, and the answer appears behind it."""

    async def at_once(database: Database, corpus: CorpusId) -> None:
        pass

    async with hesitant(stopped) as (recorder, database):
        recording = asyncio.create_task(recorded(recorder, answer_id="one"))
        await database.written.wait()
        await commit(stopped, CORPUS, delete("a"))
        with monkeypatch.context() as without:
            without.setattr(answers, "settle", at_once)
            found, position = await followed(stopped, Position(Epoch(0)))
        database.go.set()
        await recording
    assert [] == found
    assert [] == (await followed(stopped, position))[0]
    assert [(2, "one")] == (await followed(stopped, Position(Epoch(0))))[0]


async def test_g10_a_recorder_that_stands_still_holds_nobody_up_for_long(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends its transaction: the recalls go on, and the recording fails, so that no verdict is given."""
    monkeypatch.setattr(answers, "RECORDING_SILENCE_MS_MAX", 200)
    async with hesitant(stopped) as (recorder, database):
        recording = asyncio.create_task(recorded(recorder, answer_id="one"))
        await database.written.wait()
        await commit(stopped, CORPUS, delete("a"))
        assert [] == (await followed(stopped, Position(Epoch(0))))[0]
        database.go.set()
        (failure,) = await asyncio.gather(recording, return_exceptions=True)
        assert "ledger_unavailable" == getattr(failure, "code", None)


async def test_g13_recalls_that_cannot_be_known_are_an_error(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a page with some of them missing."""
    monkeypatch.setattr(answers, "SETTLE_MS_MAX", 100)
    async with hesitant(stopped) as (recorder, database):
        recording = asyncio.create_task(recorded(recorder, answer_id="one"))
        await database.written.wait()
        with pytest.raises(AnswersUnsettled):
            await followed(stopped, Position(Epoch(0)))
        database.go.set()
        await recording


async def test_g10_followers_see_what_is_there_in_the_end(stopped: Services) -> None:
    """Several processes record answers while another one replaces what they cite, again and again: a follower that
    goes from cursor to cursor has in the end seen exactly what a reader from the start sees."""
    done, delivered, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def record(name: str) -> int:
        process, number = await second_process(stopped), 0
        while not done.is_set():
            verdict = await recorded(process, answer_id=f"{name}-{number}")
            if verdict.verdict is Decision.PASS:
                delivered.set()
            number += 1
        return number

    async def follow() -> list[tuple[int, str]]:
        process, position, seen = await second_process(stopped), Position(Epoch(0)), list[tuple[int, str]]()
        while True:
            last = over.is_set()
            found, position = await followed(process, position)
            seen += found
            if last and not found:
                return seen
            await asyncio.sleep(0)

    recorders = [asyncio.create_task(record(f"r{number}")) for number in range(RECORDERS)]
    follower = asyncio.create_task(follow())
    for number in range(COMMITS):
        await delivered.wait()
        delivered.clear()
        await commit(stopped, CORPUS, put("a", chunks=[chunk(f"a{number}", 1)]))
    done.set()
    assert all(await asyncio.gather(*recorders))
    await commit(stopped, CORPUS, delete("a"))
    over.set()
    seen = await follower
    everything, _ = await followed(stopped, Position(Epoch(0)))
    assert len(everything) >= COMMITS / 2, "too few answers were recalled to show anything"
    assert everything == seen
