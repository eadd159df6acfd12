"""Nobody sees a cut-over: neither a commit nor a read that is under way when it happens, in whatever process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ragver.bootstrap import Services
from ragver.errors import IndexUnavailable, VectorInvalid
from ragver.ledger import commits, corpora, lifecycle
from ragver.types import GenerationId
from tests.support.generations import (
    LARGE,
    LARGER,
    SMALL,
    Model,
    begin,
    built,
    built_beside,
    check_generations,
    cut_over,
    indexing,
    model,
)
from tests.support.ledger import waits_for_a_lock
from tests.support.services import CORPUS, commit, make_corpus, open_test_services, put
from tests.support.spine import retrieve, second_process, texts, watched

NOTICES = "AND generation_id = :generation"
BLIND = {
    "no condition": "",
    "a condition on another table": """AND EXISTS (
        SELECT 1 FROM index_generation g
        WHERE g.corpus_id = corpus.id AND g.id = :generation AND g.state = 'serving'
    )""",
}
"""What would not notice a cut-over in the place of the compare on the corpus row."""


@pytest.fixture
async def unindexed(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer the test starts, with a corpus of two documents."""
    async with open_test_services(database_url, tmp_path) as services:
        await make_corpus(services, embedding=LARGER)
        await commit(services, CORPUS, put("a", "ducks"), put("b", "geese"))
        yield services


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Model:
    return model(monkeypatch)


async def commit_across_a_cut_over(services: Services) -> None:
    """A commit that was planned for the former generation, and waited for the cut-over's lock when it was written."""
    generation = GenerationId(int(await built_beside(services)))
    info = await corpora.get(services.database, CORPUS)
    async with lifecycle.cutting_over(services.database, info.corpus_id, generation) as cutting:
        assert await cutting.swap()
        writing = asyncio.create_task(commit(services, CORPUS, put("c", "swans")))
        await waits_for_a_lock(services.database.url)
    await writing


async def test_g04_a_commit_across_a_cut_over_is_read(unindexed: Services) -> None:
    """It brings vectors of the generation that serves by then, with no help of an indexer."""
    await commit_across_a_cut_over(unindexed)

    assert "swans" == texts(await retrieve(unindexed, query="swans"))[0]
    async with indexing(unindexed):
        await built(unindexed, (await unindexed.generations.all_of(CORPUS))[0].id)
        assert ["serving", "standby"] == sorted(await check_generations(unindexed))


@pytest.mark.parametrize("instead", BLIND)
async def test_g04_anomaly_a_commit_that_does_not_notice_a_cut_over_cannot_be_read(
    unindexed: Services, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Its vectors are of the generation that stands by. Also a condition on the generation's own row is of no use:
    it is not read again after the wait."""
    statement = str(commits._WRITE)
    assert NOTICES in statement
    monkeypatch.setattr(commits, "_WRITE", text(statement.replace(NOTICES, BLIND[instead])))
    await commit_across_a_cut_over(unindexed)

    assert "swans" not in texts(await retrieve(unindexed, query="swans"))


async def test_g04_a_commit_that_waits_for_its_model_is_embedded_anew(unindexed: Services, between: Model) -> None:
    """Nothing is held while a model is asked, so a cut-over comes in between; the commit then asks the other model."""
    generation = await built_beside(unindexed)
    between.gated = {LARGE}
    writing = asyncio.create_task(commit(unindexed, CORPUS, put("c", "swans")))
    await between.asked.wait()
    await cut_over(unindexed, generation)
    between.may_answer.set()

    assert 2 == (await writing).epoch
    assert "swans" == texts(await retrieve(unindexed, query="swans"))[0]


async def other_process_after_a_cut_over(services: Services, between: Model) -> Services:
    """A process that has read the former generation last, which does not follow the corpus since the cut-over."""
    async with indexing(services):
        generation = await begin(services)
        await built(services, generation)
        other = await second_process(services)
        assert ["ducks"] == texts(await retrieve(other, query="ducks", k=1))
        between.away = {LARGE}
        await cut_over(services, generation)
        made = await commit(services, CORPUS, put("c", "swans"))
        while (await services.catalog.corpus(CORPUS)).applied_epoch < made.epoch:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.01)
    return other


@pytest.mark.parametrize("former_model_is_gone", [False, True])
async def test_g04_another_process_reads_what_was_committed_after_a_cut_over(
    unindexed: Services, between: Model, former_model_is_gone: bool
) -> None:
    """The head tells it of the cut-over; the question is embedded anew, also where the former model is no more."""
    other = await other_process_after_a_cut_over(unindexed, between)
    between.queries_too = former_model_is_gone
    assert "swans" == texts(await retrieve(other, query="swans"))[0]


async def test_g04_anomaly_an_applied_epoch_of_another_generation_loses_chunks(
    unindexed: Services, between: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searched is the former index, and the tail begins where the other one ends: what lies between is in neither."""
    other = await other_process_after_a_cut_over(unindexed, between)
    monkeypatch.setattr("ragver.reading.Asked.meant_for", lambda self, head: True)
    assert "swans" not in texts(await retrieve(other, query="swans"))


async def test_g03_a_read_in_flight_on_the_former_generation_stays_right(unindexed: Services) -> None:
    """Between its head and its search come the cut-over, a commit and the indexing of it."""
    generation = await built_beside(unindexed)
    services, index = watched(unindexed)
    asked_at = (await retrieve(services, query="ducks")).epoch

    async def meanwhile() -> None:
        async with indexing(unindexed):
            await cut_over(unindexed, generation)
            await commit(unindexed, CORPUS, put("a", "drakes"), put("c", "swans"))
            await built(unindexed, (await unindexed.generations.all_of(CORPUS))[0].id)

    index.before_search = meanwhile
    old = await retrieve(services, query="ducks", epoch=asked_at)
    assert ["ducks", "geese"] == sorted(texts(old))
    assert ["drakes", "geese", "swans"] == sorted(texts(await retrieve(services, query="ducks")))


async def test_g04_a_read_whose_generation_is_retired_under_it_begins_anew(unindexed: Services) -> None:
    """The collection that it searched is gone: not an error, since another one serves."""
    generation = await built_beside(unindexed)
    services, index = watched(unindexed)
    await retrieve(services, query="ducks")

    async def meanwhile() -> None:
        async with indexing(unindexed):
            former = (await cut_over(unindexed, generation)).former
        await unindexed.generations.retire(CORPUS, former)

    index.before_search = meanwhile
    assert ["ducks", "geese"] == sorted(texts(await retrieve(services, query="ducks")))
    index.away = True
    with pytest.raises(IndexUnavailable):
        await retrieve(services, query="ducks", epoch=1)


def with_vector(key: str, dimensions: int) -> Any:
    return put(key, chunks=[{"text": key, "vector": [1.0] * dimensions}])


async def test_g11_a_repeated_commit_is_answered_after_a_cut_over_to_vectors_of_another_length(
    unindexed: Services,
) -> None:
    """The request was applied when its vectors did fit; and what fits now is taken also by a process that has not
    heard of the cut-over."""
    generation = await built_beside(unindexed)
    first = await commit(unindexed, CORPUS, with_vector("c", LARGE), idempotency_key="once")
    other = await second_process(unindexed)
    await other.views.get(CORPUS)
    async with indexing(unindexed):
        await cut_over(unindexed, generation)

    again = await commit(other, CORPUS, with_vector("c", LARGE), idempotency_key="once")
    assert (first.epoch, True) == (again.epoch, again.replayed)
    assert first.epoch + 1 == (await commit(other, CORPUS, with_vector("d", SMALL))).epoch
    with pytest.raises(VectorInvalid, match=f"{LARGE} numbers.*{SMALL}"):
        await commit(other, CORPUS, with_vector("e", LARGE))


async def test_g04_every_strong_read_is_right_while_generations_come_and_go(unindexed: Services) -> None:
    """Writers and readers in two processes each, through a migration, a rollback, another cut-over and a rebuild."""
    from tests.support.traffic import Traffic

    second = await second_process(unindexed)
    async with (
        indexing(unindexed),
        Traffic(CORPUS, writers=[unindexed, second], readers=[unindexed, second]) as traffic,
    ):
        generation = await begin(unindexed)
        await built(unindexed, generation, at_head=False)
        for target in (generation, "back", "again"):
            await traffic.goes_on(60)
            others = await unindexed.generations.all_of(CORPUS)
            if target != generation:
                target = next(one.id for one in others if one.state == "standby")
            done = await cut_over(unindexed, target)
        await traffic.goes_on(60)
        await unindexed.generations.retire(CORPUS, done.former)
        await built(unindexed, await begin(unindexed, None), at_head=False)
        await traffic.goes_on(60)
    async with indexing(unindexed):
        for one in await unindexed.generations.all_of(CORPUS):
            await built(unindexed, one.id)
    await traffic.check_all(unindexed)
    assert ["building", "serving"] == sorted(await check_generations(unindexed))
