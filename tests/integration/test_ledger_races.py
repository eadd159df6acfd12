"""Writers who meet: versions compared, locks taken, tasks given up, corpora deleted under them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import text

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import CommitContention, CorpusExists, CorpusNotFound, DocumentNotFound, VersionConflict
from ragver.ledger import commits
from ragver.ledger.database import Database
from ragver.writer import LOCKED_ATTEMPTS_MAX, OPTIMISTIC_ATTEMPTS
from tests.support.blocking import gate
from tests.support.ledger import check_chain, query, waits_for_a_lock
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put, rename

RACERS = 12
TABLES = ("embedding", "chunk", "document_version", "document", "commit_log", "index_generation", "corpus")

T = TypeVar("T")


async def outcomes(*racing: Awaitable[T]) -> tuple[list[T], list[BaseException]]:
    """What those brought who got through, and the errors of the others."""
    ended = await asyncio.gather(*racing, return_exceptions=True)
    failed = [one for one in ended if isinstance(one, BaseException)]
    return [one for one in ended if not isinstance(one, BaseException)], failed


@pytest.mark.parametrize("operation", ["put", "delete", "create"])
async def test_of_those_who_name_a_version_one_gets_through(services: Services, operation: str) -> None:
    """However many decide on the same version, one commit is made and the others learn that it is gone."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "first"))

    def racer(number: int) -> wire.Operation:
        if operation == "delete":
            return delete("a", if_version=1)
        key, version = ("a", 1) if operation == "put" else ("fresh", 0)
        return put(key, f"text {number}", if_version=version)

    made, failed = await outcomes(*(commit(services, CORPUS, racer(n)) for n in range(RACERS)))
    assert [2] == [one.epoch for one in made]
    gone = DocumentNotFound if operation == "delete" else VersionConflict
    assert [gone] * (RACERS - 1) == [type(one) for one in failed]


async def test_of_those_who_take_a_key_one_gets_it(services: Services, database_url: str) -> None:
    """Two documents never live under one key, whoever puts and whoever renames."""
    await make_corpus(services)
    await commit(services, CORPUS, *(put(f"d{n}", f"text {n}") for n in range(RACERS)))
    made, failed = await outcomes(*(commit(services, CORPUS, rename(f"d{n}", "wanted")) for n in range(RACERS)))
    assert (1, RACERS - 1) == (len(made), len(failed))
    (row,) = await query(database_url, "SELECT count(*) AS n FROM document WHERE key = 'wanted' AND alive")
    assert 1 == row["n"]


async def test_who_keeps_being_overtaken_takes_the_lock(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the optimistic attempts nobody can overtake any more."""
    await make_corpus(services)
    read_before = commits.read_before
    overtaken: list[None] = []

    async def read_and_be_overtaken(*arguments: Any, **more: Any) -> commits.Before:
        before = await read_before(*arguments, **more)
        if len(overtaken) < OPTIMISTIC_ATTEMPTS:
            overtaken.append(None)
            monkeypatch.setattr(commits, "read_before", read_before)
            await commit(services, CORPUS, put("a", f"overtaking {len(overtaken)}"))
            monkeypatch.setattr(commits, "read_before", read_and_be_overtaken)
        return before

    monkeypatch.setattr(commits, "read_before", read_and_be_overtaken)
    made = await commit(services, CORPUS, put("a", "patient"))
    assert (OPTIMISTIC_ATTEMPTS + 1, OPTIMISTIC_ATTEMPTS + 1) == (made.epoch, made.documents[0].version)


async def test_the_lock_keeps_other_commits_out(services: Services, database_url: str) -> None:
    """Whoever holds it, the next commit waits and then builds on what was made under it."""
    await make_corpus(services)
    corpus = (await services.views.get(CORPUS)).info.corpus_id
    async with services.database.transaction() as holder:
        await commits.lock(holder, corpus)
        waiting = asyncio.create_task(commit(services, CORPUS, put("a", "x")))
        await waits_for_a_lock(database_url)
        assert not waiting.done()
    assert 1 == (await waiting).epoch


async def test_attempts_are_bounded(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never gets through is told to try again later."""
    await make_corpus(services)
    attempts = []

    async def write(*arguments: object) -> None:
        attempts.append(arguments)

    monkeypatch.setattr(commits, "write", write)
    with pytest.raises(CommitContention):
        await commit(services, CORPUS, put("a", "x"))
    assert OPTIMISTIC_ATTEMPTS <= len(attempts) <= OPTIMISTIC_ATTEMPTS + LOCKED_ATTEMPTS_MAX


async def test_tasks_that_give_up_leave_whole_commits_and_free_connections(database_url: str, tmp_path: Path) -> None:
    """A commit that is cancelled at any moment is there whole or not at all; the pool is as good as before."""
    chance, pool = random.Random(7), 4
    async with open_test_services(database_url, tmp_path, database_pool_max=pool) as services:
        await make_corpus(services)
        tasks = []
        for number in range(60):
            ops = [put(key, f"{key} {number}") for key in ("left", "right")]
            tasks.append(asyncio.create_task(commit(services, CORPUS, *ops)))
            await asyncio.sleep(chance.uniform(0, 0.01))
            chance.choice(tasks).cancel()
        made, failed = await outcomes(*tasks)
        assert made
        assert failed
        assert [] == [one for one in failed if not isinstance(one, asyncio.CancelledError)]

        commits_made = await check_chain(database_url, CORPUS)
        assert len(made) <= commits_made
        for epoch in range(1, commits_made + 1):
            texts = [(await services.catalog.document(CORPUS, key, epoch)).text for key in ("left", "right")]
            assert 1 == len({text.split()[1] for text in texts}), epoch
        async with asyncio.timeout(20):
            await asyncio.gather(*(commit(services, CORPUS, put(f"d{n}", "x")) for n in range(3 * pool)))


STEPS_UNTIL_BEGUN = 80
"""Turns of the event loop that are more than enough to begin a transaction."""


async def test_a_task_that_gives_up_leaves_no_transaction_open(database_url: str) -> None:
    """Whenever a task is cancelled that begins a transaction: whoever gets its connection is not inside of it, and
    what he writes is committed."""
    database = Database(database_url, pool_max=1)
    await query(database_url, "CREATE TABLE written (n int)")

    async def begin() -> None:
        async with database.transaction():
            await asyncio.sleep(60)

    for steps in range(STEPS_UNTIL_BEGUN):
        await database.fetch(text("SELECT 1"))
        task = asyncio.create_task(begin())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with database.autocommit() as connection:
            await connection.fetch(text("INSERT INTO written VALUES (:n)"), {"n": steps})
        assert steps + 1 == (await query(database_url, "SELECT count(*) AS n FROM written"))[0]["n"], steps
    await database.close()


async def test_a_corpus_deleted_under_its_writers_leaves_no_row(services: Services, database_url: str) -> None:
    """Commits end before the deletion or find no corpus; none leaves a row of a corpus that is gone."""
    await make_corpus(services)

    async def write_until_it_is_gone(name: str) -> int:
        for number in range(10_000):
            try:
                await commit(services, CORPUS, put(name, f"text {number}"))
            except CorpusNotFound:
                return number
        return 0

    writers = [asyncio.create_task(write_until_it_is_gone(f"d{n}")) for n in range(6)]
    async with asyncio.timeout(30):
        while (await services.catalog.corpus(CORPUS)).head < 20:  # noqa: ASYNC110 - PostgreSQL has no event for it
            await asyncio.sleep(0.01)
        await services.catalog.delete(CORPUS)
        written = await asyncio.gather(*writers)
    assert min(written) > 0

    for table in TABLES:
        (row,) = await query(database_url, f"SELECT count(*) AS n FROM {table}")
        assert (table, 0) == (table, row["n"])


async def test_a_corpus_deleted_in_mid_commit_waits_for_it(services: Services, database_url: str) -> None:
    """The commit that is under way is acknowledged, then everything is removed."""
    await make_corpus(services)
    async with gate(database_url, "commit_log", at_commit=False) as closed:
        writing = asyncio.create_task(commit(services, CORPUS, put("a", "x")))
        await closed.reached()
        deleting = asyncio.create_task(services.catalog.delete(CORPUS))
        await asyncio.sleep(0.1)
        assert not deleting.done()
        await closed.open()
        assert 1 == (await writing).epoch
        await deleting
    for table in TABLES:
        (row,) = await query(database_url, f"SELECT count(*) AS n FROM {table}")
        assert (table, 0) == (table, row["n"])


async def test_a_corpus_made_again_starts_anew(services: Services) -> None:
    """Under the same name it is another corpus: epoch 1, no document, also for who knew the old one."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "old"), idempotency_key="k")
    await services.catalog.delete(CORPUS)
    with pytest.raises(CorpusNotFound):
        await commit(services, CORPUS, put("a", "x"))
    await make_corpus(services)
    made = await commit(services, CORPUS, put("b", "new"), idempotency_key="k")
    assert (1, False) == (made.epoch, made.replayed)


async def test_another_process_makes_the_corpus_again(database_url: str, tmp_path: Path) -> None:
    """A process that still knows the old corpus writes into the new one, and not into nowhere."""
    async with (
        open_test_services(database_url, tmp_path / "one") as one,
        open_test_services(database_url, tmp_path / "other") as other,
    ):
        await make_corpus(one)
        await commit(one, CORPUS, put("a", "old"))
        await other.catalog.delete(CORPUS)
        await make_corpus(other)
        assert 1 == (await commit(one, CORPUS, put("b", "new"))).epoch
        assert ["b"] == [found.key for found in (await one.catalog.documents(CORPUS, "", None, None, 10)).documents]


async def test_a_name_is_taken_once(services: Services, database_url: str) -> None:
    """Of those who make a corpus at once one does, and the others learn that it exists."""
    made, failed = await outcomes(*(make_corpus(services) for _ in range(RACERS)))
    assert (1, [CorpusExists] * (RACERS - 1)) == (len(made), [type(one) for one in failed])
    (row,) = await query(database_url, "SELECT count(*) AS n FROM index_generation")
    assert 1 == row["n"]
