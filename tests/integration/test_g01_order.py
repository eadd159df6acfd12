"""G1: epochs are gap-free, and equal to commit order also under concurrent writers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.types import DocumentStatus
from tests.support.child import Child, child
from tests.support.ledger import check_chain, query, waits_for_a_lock
from tests.support.services import CORPUS, commit, make_corpus, open_test_services, put

pytestmark = pytest.mark.guarantee(1)

WRITERS = 4
COMMITS_PER_WRITER = 40
FEED_PAGE = 7
"""Small and odd, so that pages end in the middle of what was just committed."""

# Commits to a document of its own and to one that all writers fight for, in turn.
WRITER = """
import asyncio, json, sys
from pathlib import Path
from tests.support.services import CORPUS, commit, open_test_services, put

async def main(url, directory, name, commits):
    async with open_test_services(url, Path(directory)) as services:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(int(commits)):
            key = "shared" if number % 2 else name
            made = await commit(services, CORPUS, put(key, f"{name} {number}"), actor=name)
            print(json.dumps([made.epoch, made.committed_at.isoformat(), key]), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def followed(services: Services, until: int) -> list[wire.CommitEntry]:
    """The commits as a reader sees them who asks again and again for what is new, up to an epoch."""
    seen: list[wire.CommitEntry] = []
    async with asyncio.timeout(60):
        while len(seen) < until:
            seen += await services.catalog.commits(CORPUS, seen[-1].epoch if seen else 0, FEED_PAGE)
    return seen


def acknowledged(writer: Child) -> list[tuple[int, str, str]]:
    return [tuple(json.loads(writer.read())) for _ in range(COMMITS_PER_WRITER)]


async def test_g01_epochs_of_concurrent_writers_are_commit_order(database_url: str, tmp_path: Path) -> None:
    """Writers in several processes get epochs 1…n without gaps or doubles; a follower misses none of them and
    sees them in order; their times do not go back; the audit chain links them in this order."""
    total = WRITERS * COMMITS_PER_WRITER
    async with open_test_services(database_url, tmp_path / "reader") as services:
        await make_corpus(services)
        with ExitStack() as stack:
            writers = [
                stack.enter_context(child(WRITER, database_url, str(tmp_path / name), name, str(COMMITS_PER_WRITER)))
                for name in (f"writer-{number}" for number in range(WRITERS))
            ]
            for writer in writers:
                assert await asyncio.to_thread(writer.read) == "ready"
            follower = asyncio.create_task(followed(services, total))
            for writer in writers:
                writer.tell()
            answers = [await asyncio.to_thread(acknowledged, writer) for writer in writers]
            feed = await follower

    by_epoch = sorted(answer for of_one in answers for answer in of_one)
    assert list(range(1, total + 1)) == [epoch for epoch, _, _ in by_epoch]
    assert by_epoch == [(entry.epoch, entry.committed_at.isoformat(), entry.documents[0].key) for entry in feed]
    assert total == await check_chain(database_url, CORPUS)
    assert all(sorted(of_one) == of_one for of_one in answers), "a writer's later commit has the later epoch"
    writers_of_runs = [entry.actor for entry in feed]
    changes = sum(one != other for one, other in pairwise(writers_of_runs))
    assert changes > WRITERS, "the writers took turns, or the test shows nothing"


async def test_g01_concurrent_tasks_each_get_an_epoch_of_their_own(services: Services, database_url: str) -> None:
    """Many tasks of one process who fight for one document all get through, each with its own epoch and version."""
    await make_corpus(services)
    made = await asyncio.gather(*(commit(services, CORPUS, put("shared", f"text {n}")) for n in range(24)))
    by_epoch = sorted((one.epoch, one.documents[0].version) for one in made)
    assert [(n, n) for n in range(1, 25)] == by_epoch
    assert 24 == await check_chain(database_url, CORPUS)


async def test_g01_corpora_count_apart(services: Services) -> None:
    """Each corpus has epochs of its own."""
    await make_corpus(services, "one")
    await make_corpus(services, "other")
    assert [1, 1, 2] == [
        (await commit(services, name, put("a", text))).epoch
        for name, text in (("one", "x"), ("other", "x"), ("one", "y"))
    ]


async def test_g01_a_commit_that_changes_nothing_takes_an_epoch(services: Services) -> None:
    """Every accepted commit takes an epoch: the same put again, and also no operation at all."""
    await make_corpus(services)
    made = [await commit(services, CORPUS, *ops) for ops in ([put("a", "x")], [put("a", "x")], [])]
    assert [1, 2, 3] == [one.epoch for one in made]
    assert DocumentStatus.UNCHANGED == made[1].documents[0].status


async def test_g01_time_does_not_go_back_with_the_clock(services: Services, database_url: str) -> None:
    """After the database's clock was set back, commits keep the last time until the clock has caught up."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "x"))
    await query(database_url, "UPDATE corpus SET last_committed_at = now() + interval '1 hour'")
    ahead = await commit(services, CORPUS, put("a", "y"))
    later = await commit(services, CORPUS, put("a", "z"))
    assert ahead.committed_at == later.committed_at
    assert 3 == await check_chain(database_url, CORPUS)


@pytest.mark.parametrize(
    "change", ["reason = 'other'", "summary = '[]'", "committed_at = committed_at + interval '1 us'"]
)
async def test_g01_the_chain_shows_a_changed_commit(services: Services, database_url: str, change: str) -> None:
    """Whoever alters a commit in the log breaks the chain from there."""
    await make_corpus(services)
    for text in ("x", "y", "z"):
        await commit(services, CORPUS, put("a", text))
    assert 3 == await check_chain(database_url, CORPUS)
    await query(database_url, f"UPDATE commit_log SET {change} WHERE epoch = 2")
    with pytest.raises(AssertionError, match="epoch 2 was altered"):
        await check_chain(database_url, CORPUS)


# ── the anomaly, with the mechanism switched off ─────────────────────────────────────────────────────────────


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def read_feed(url: str, cursor: int) -> list[int]:
    return [row["epoch"] for row in await query(url, "SELECT epoch FROM log WHERE epoch > $1 ORDER BY epoch", cursor)]


async def test_g01_anomaly_epochs_from_a_sequence_lose_a_commit(empty_database_url: str) -> None:
    """A sequence numbers transactions before they commit: a follower sees 2 before 1, and then misses 1 for ever."""
    url = empty_database_url
    async with connected(url) as slow, connected(url) as fast:
        await slow.execute("CREATE SEQUENCE epochs; CREATE TABLE log (epoch bigint)")
        numbered = "INSERT INTO log SELECT nextval('epochs') RETURNING epoch"
        transaction = slow.transaction()
        await transaction.start()
        assert await slow.fetchval(numbered) == 1
        assert await fast.fetchval(numbered) == 2

        first_look = await read_feed(url, 0)
        await transaction.commit()
        second_look = await read_feed(url, first_look[-1])

        assert ([2], []) == (first_look, second_look)
        assert [1, 2] == await read_feed(url, 0)


async def test_g01_the_row_lock_takes_the_anomaly_away(empty_database_url: str) -> None:
    """The same interleaving with the number from a row: the fast transaction waits, the follower misses nothing."""
    url = empty_database_url
    async with connected(url) as slow, connected(url) as fast:
        await slow.execute("CREATE TABLE corpus AS SELECT 0::bigint AS epoch; CREATE TABLE log (epoch bigint)")
        numbered = """
            WITH head AS (UPDATE corpus SET epoch = epoch + 1 RETURNING epoch)
            INSERT INTO log SELECT epoch FROM head RETURNING epoch
        """
        transaction = slow.transaction()
        await transaction.start()
        assert await slow.fetchval(numbered) == 1
        waiting = asyncio.create_task(fast.fetchval(numbered))
        await waits_for_a_lock(url)

        assert [] == await read_feed(url, 0)
        await transaction.commit()
        assert await waiting == 2
        assert [1, 2] == await read_feed(url, 0)
