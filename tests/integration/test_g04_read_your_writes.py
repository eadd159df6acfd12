"""G4: a strong retrieval sees every commit acknowledged before it began, wherever the indexer is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import IndexLagging
from ragver.types import Distance, Level
from tests.support.services import (
    CORPUS,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_acl,
    set_metadata,
)
from tests.support.spine import DIMENSIONS, EXTERNAL, chunk, index_all, retrieve, second_process, texts

pytestmark = pytest.mark.guarantee(4)

HR = {"field": "team", "eq": "hr"}
TAIL_ROWS_MAX = 10


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, and a corpus that is indexed up to its first commit."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL, filterable={"team": "keyword"})
        chunks = [chunk("a1", 1), chunk("a2", 2)]
        secret = put("b", acl=["group:hr"], metadata={"team": "hr"}, chunks=[chunk("b1", 3)])
        await commit(services, CORPUS, put("a", chunks=chunks), secret)
        await index_all(services)
        yield services


SEEN: dict[str, tuple[list[wire.Operation], list[str], list[str]]] = {
    "birth": ([put("c", chunks=[chunk("c1", 0)])], ["c1", "a1", "a2"], []),
    "death": ([delete("a")], [], []),
    "edit": ([put("a", chunks=[chunk("a2", 2), chunk("a3", 4)])], ["a2", "a3"], []),
    "rename": ([rename("a", "z")], ["a1", "a2"], []),
    "allow": ([set_acl("b", "*")], ["a1", "a2", "b1"], ["b1"]),
    "deny": ([set_acl("a", "group:hr")], [], []),
    "describe": ([set_metadata("a", team="hr")], ["a1", "a2"], ["a1", "a2"]),
    "allow and describe": ([set_acl("b", "*"), set_metadata("b", team="it")], ["a1", "a2", "b1"], []),
    "replace": ([delete("a"), rename("b", "a"), set_acl("a", "*")], ["b1"], ["b1"]),
    "nothing": ([], ["a1", "a2"], []),
}


@pytest.mark.parametrize("change", SEEN)
async def test_g04_every_kind_of_change_is_seen_at_once(stopped: Services, change: str) -> None:
    """With the indexer stopped, in the process that wrote and in another that had read before."""
    operations, expected, in_hr = SEEN[change]
    other = await second_process(stopped)
    await retrieve(other)
    made = await commit(stopped, CORPUS, *operations)
    for process in (stopped, other, await second_process(stopped)):
        answer = await retrieve(process)
        assert (made.epoch, expected) == (answer.epoch, texts(answer))
        assert in_hr == texts(await retrieve(process, filter=HR))


async def test_g04_a_bounded_read_does_not_see_what_is_not_applied(stopped: Services) -> None:
    """The anomaly: the newest epoch that needs no tail. It is stale, though never wrong for its epoch."""
    await commit(stopped, CORPUS, delete("a"), put("c", chunks=[chunk("c1", 0)]))
    assert ["a1", "a2"] == texts(await retrieve(stopped, level=Level.BOUNDED))
    assert ["c1"] == texts(await retrieve(stopped, level=Level.STRONG))


@pytest.mark.parametrize("seed", range(3))
async def test_g04_a_writer_reads_what_it_wrote(services: Services, seed: int) -> None:
    """Writers and readers side by side while the indexer follows: after an acknowledgement the change is there."""
    chance = random.Random(seed)
    await make_corpus(services, embedding=EXTERNAL)
    other = await second_process(services)

    async def write(key: str) -> None:
        for n in range(12):
            text = f"{key} {n}"
            operation: wire.Operation = put(key, chunks=[chunk(text, chance.randrange(100))])
            if n % 4 == 3:
                operation = delete(key)
            made = await commit(services, CORPUS, operation)
            answer = await retrieve(chance.choice([services, other]), k=100)
            assert answer.epoch >= made.epoch
            assert ([] if n % 4 == 3 else [text]) == [found for found in texts(answer) if found.startswith(f"{key} ")]

    await asyncio.gather(*(write(f"key{writer}") for writer in range(6)))


@pytest.mark.parametrize("distance", Distance)
async def test_g04_the_tail_scores_as_the_index_does(stopped: Services, distance: Distance) -> None:
    """The same hits in the same order with the same scores, whether the index or the ledger was asked."""
    chance = random.Random(7)
    await make_corpus(stopped, "measured", embedding={**EXTERNAL, "distance": distance})

    def vector() -> list[float]:
        return [round(chance.uniform(-2, 2), 3) for _ in range(DIMENSIONS)]

    chunks = [{"text": f"text {n}", "vector": vector()} for n in range(40)]
    await commit(stopped, "measured", put("a", chunks=chunks))
    questions = [vector() for _ in range(5)]
    by_tail = [await retrieve(stopped, corpus="measured", vector=question) for question in questions]
    await index_all(stopped, "measured")
    by_index = [await retrieve(stopped, corpus="measured", vector=question) for question in questions]
    assert [40] * 5 == [answer.tail for answer in by_tail]
    assert [0] * 5 == [answer.tail for answer in by_index]
    for tail, index in zip(by_tail, by_index, strict=True):
        assert texts(tail) == texts(index)
        assert pytest.approx([hit.score for hit in index.hits], abs=1e-6) == [hit.score for hit in tail.hits]


async def test_g04_a_tail_that_is_too_long_is_an_error(database_url: str, tmp_path: Path) -> None:
    """With more changes than a read may score it says so, and does not read less."""
    async with open_test_services(
        database_url, tmp_path / "data", tail_rows_max=TAIL_ROWS_MAX, index_wait_ms_max=0
    ) as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, put("a", chunks=[chunk(f"a{n}", n) for n in range(TAIL_ROWS_MAX)]))
        assert TAIL_ROWS_MAX == len((await retrieve(services)).hits)
        await commit(services, CORPUS, put("b", chunks=[chunk("b1", 50)]))
        with pytest.raises(IndexLagging) as raised:
            await retrieve(services)
        assert ("index_lagging", 503, True) == (raised.value.code, raised.value.status, raised.value.retryable)
        with pytest.raises(IndexLagging):
            await retrieve(services, epoch=1)
        assert [] == texts(await retrieve(services, level=Level.BOUNDED))
        await index_all(services)
        assert TAIL_ROWS_MAX + 1 == len((await retrieve(services)).hits)


async def test_g04_a_lower_level_reads_on_while_the_tail_is_too_long(database_url: str, tmp_path: Path) -> None:
    """What was alive at an applied epoch is all in the index, however much is waiting; access is still today's."""
    async with open_test_services(
        database_url, tmp_path / "data", tail_rows_max=TAIL_ROWS_MAX, index_wait_ms_max=0
    ) as services:
        await make_corpus(services, embedding=EXTERNAL, filterable={"team": "keyword"})
        secret = put("s", acl=["group:hr"], chunks=[chunk("s1", 0)])
        await commit(services, CORPUS, secret, put("a", chunks=[chunk("a1", 1)]), put("b", chunks=[chunk("b1", 2)]))
        await index_all(services)
        late = put("c", chunks=[chunk(f"c{n}", 3 + n) for n in range(2 * TAIL_ROWS_MAX)])
        access = set_acl("b", "group:hr"), set_acl("s", "*")
        await commit(services, CORPUS, late, *access, set_metadata("a", team="hr"))
        with pytest.raises(IndexLagging):
            await retrieve(services)
        for _ in range(2):
            for answer in (await retrieve(services, level=Level.BOUNDED), await retrieve(services, epoch=1)):
                assert (1, ["s1", "a1"]) == (answer.epoch, texts(answer))
            assert [] == texts(await retrieve(services, epoch=1, filter=HR))
            assert ["s1", "a1"] == texts(await retrieve(services, epoch=1, filter={"not": HR}))
        await index_all(services)
        assert 2 * TAIL_ROWS_MAX + 2 == len((await retrieve(services)).hits)


async def test_g04_too_many_deaths_for_a_lower_level_are_an_error_too(database_url: str, tmp_path: Path) -> None:
    """What is waiting may be of chunks that lived at the applied epoch, more than a read may score."""
    async with open_test_services(
        database_url, tmp_path / "data", tail_rows_max=TAIL_ROWS_MAX, index_wait_ms_max=0
    ) as services:
        await make_corpus(services, embedding=EXTERNAL)
        many = [chunk(f"a{n}", n) for n in range(TAIL_ROWS_MAX + 1)]
        await commit(services, CORPUS, put("a", chunks=many))
        await index_all(services)
        await commit(services, CORPUS, delete("a"))
        with pytest.raises(IndexLagging):
            await retrieve(services, level=Level.BOUNDED)
        await index_all(services)
        assert TAIL_ROWS_MAX + 1 == len((await retrieve(services, epoch=1)).hits)


async def test_g04_a_read_waits_for_the_indexer(database_url: str, tmp_path: Path) -> None:
    """A tail that is too long now may be short in a moment."""
    async with open_test_services(database_url, tmp_path / "data", tail_rows_max=TAIL_ROWS_MAX) as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, put("a", chunks=[chunk(f"a{n}", n) for n in range(2 * TAIL_ROWS_MAX)]))
        reading = asyncio.create_task(retrieve(services))
        await asyncio.sleep(0.1)
        assert not reading.done()
        await index_all(services)
        assert 2 * TAIL_ROWS_MAX == len((await reading).hits)
