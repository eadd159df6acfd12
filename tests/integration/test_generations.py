"""An index generation is built beside the serving one, checked, cut over to, gone back from, and dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.errors import (
    EmbeddingUnchanged,
    GenerationInTheWay,
    GenerationNotFound,
    GenerationNotReady,
    InvalidRequest,
)
from ragver.generations import Dropping, building, service
from ragver.index.port import Collection, Index, Point
from ragver.ledger import chunks, corpora, lifecycle, retention, vectors
from ragver.types import ChunkId, Distance, Epoch, GenerationId, GenerationState
from tests.support.generations import (
    LARGER,
    SMALL,
    Model,
    begin,
    built,
    built_beside,
    check_generations,
    cut_over,
    indexing,
    migrated,
    model,
    until,
)
from tests.support.ledger import check_index, query, waits_for_a_lock
from tests.support.qdrant_wire import wire_server
from tests.support.services import CORPUS, caught_up, commit, delete, make_corpus, open_test_services, put, set_acl
from tests.support.spine import Watched, index_all, retrieve, sql, texts


@pytest.fixture
async def unindexed(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer the test starts."""
    async with open_test_services(database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Model:
    return model(monkeypatch)


async def test_a_corpus_goes_to_another_embedding_and_back(services: Services) -> None:
    """Every epoch can be read before, after, and after going back; commits meanwhile are in both generations."""
    await make_corpus(services)
    first = await commit(services, CORPUS, put("a", "the old page about ducks"), put("b", "geese"))
    await commit(services, CORPUS, delete("a"), set_acl("b", "g:birds"))
    before = await retrieve(services, query="ducks", epoch=first.epoch)

    generation = await begin(services)
    await commit(services, CORPUS, put("c", "swans while it is built"))
    ready = await built(services, generation)
    assert (3, 3, None) == (ready.chunks, ready.embedded, ready.problem)
    done = await cut_over(services, generation)

    assert 128 == (await services.catalog.corpus(CORPUS)).embedding.dimensions
    assert await check_index(services, CORPUS) == 3
    assert texts(before) == texts(await retrieve(services, query="ducks", snapshot=before.snapshot))
    await commit(services, CORPUS, put("d", "herons after it"))
    await caught_up(services)
    await built(services, done.former)
    assert "herons after it" in texts(await retrieve(services, query="herons"))

    await cut_over(services, done.former)
    assert await check_index(services, CORPUS) == 4
    assert "herons after it" in texts(await retrieve(services, query="herons"))
    assert texts(before) == texts(await retrieve(services, query="ducks", snapshot=before.snapshot))


async def test_a_rebuild_copies_the_vectors_also_of_clients(services: Services) -> None:
    """No model is asked: the ledger has every vector, those included that only clients can make."""
    await make_corpus(services, embedding={"provider": "external", "dimensions": 2})
    await commit(services, CORPUS, put("a", chunks=[{"text": "one", "vector": [0.6, 0.8]}]))
    await migrated(services, None)

    vectors = await query(services.database.url, "SELECT vector FROM embedding ORDER BY generation_id")
    assert 2 == len(vectors)
    assert vectors[0] == vectors[1]
    assert await check_index(services, CORPUS) == 1


async def test_a_model_that_is_away_holds_up_its_own_generation_only(
    services: Services, between: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build says why it waits, and goes on by itself; commits and reads do not notice."""
    monkeypatch.setattr(building, "RETRY_S", 0.01)
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "ducks"))
    between.away = {SMALL}
    generation = await begin(services)
    waiting = await until(services, generation, lambda told: told.problem is not None)

    assert "it cannot be given its vectors: the test has switched the model off" == waiting.problem
    await commit(services, CORPUS, put("b", "geese"))
    assert "geese" == texts(await retrieve(services, query="geese"))[0]
    await caught_up(services)
    with pytest.raises(GenerationNotReady, match=r"not been found equal.*switched the model off"):
        await cut_over(services, generation)

    between.away = set()
    assert (await built(services, generation)).problem is None
    await cut_over(services, generation)
    assert 2 == await check_index(services, CORPUS)


async def test_each_content_is_embedded_once(services: Services, between: Model) -> None:
    """Also when it was put many times; and what was made before a stop is not made again."""
    await make_corpus(services)
    await commit(services, CORPUS, *(put(key, "the same text") for key in "abc"), put("d", "another"))
    between.texts.clear()
    await built(services, await begin(services))
    assert ["another", "the same text"] == sorted(between.texts)


class Lossy(Watched):
    """An index that says it has inserted points, and has lost the first of them."""

    def __init__(self, inner: Index, lost: list[Point]) -> None:
        super().__init__(inner)
        self.lost = lost

    async def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        if points and not self.lost:
            self.lost.append(points[0])
            points = points[1:]
        await super().upsert(collection, points)


async def built_on_a_lossy_index(services: Services) -> str:
    """The index loses a point of the new generation."""
    await make_corpus(services)
    await commit(services, CORPUS, *(put(key, key) for key in "abcdef"))
    await index_all(services)
    async with indexing(replace(services, index=Lossy(services.index, []))):
        generation = await begin(services)
        await built(services, generation)
    return generation


async def test_a_generation_that_is_not_equal_to_the_ledger_is_mended_before_it_serves(unindexed: Services) -> None:
    """The check finds what the index lost; it is applied anew, without asking the model again."""
    generation = await built_on_a_lossy_index(unindexed)
    await cut_over(unindexed, generation)
    assert 6 == await check_index(unindexed, CORPUS)


async def test_anomaly_an_unchecked_generation_serves_without_what_the_index_lost(
    unindexed: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would miss the point: the applied epoch says that it is there."""

    async def unchecked(*_: object) -> list[ChunkId]:
        return []

    monkeypatch.setattr(unindexed.builder, "_compare", unchecked)
    generation = await built_on_a_lossy_index(unindexed)
    await cut_over(unindexed, generation)
    assert 5 == len(texts(await retrieve(unindexed, query="a")))


async def test_a_generation_that_passes_over_chunks_is_not_verified(
    unindexed: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were a chunk without a vector taken for one whose vector is gone for good, its generation would never serve."""
    await make_corpus(unindexed)
    await commit(unindexed, CORPUS, put("a", "ducks"))
    await index_all(unindexed)
    generation = await begin(unindexed)
    original = chunks._change
    with monkeypatch.context() as patched:
        patched.setattr(chunks, "_change", lambda row: replace(original(row), awaits_vector=False))
        async with indexing(unindexed):
            told = await until(unindexed, generation, lambda told: told.problem is not None)
    assert ("chunks were passed over; it is applied anew", None) == (told.problem, told.verified_epoch)
    async with indexing(unindexed):
        await built(unindexed, generation)


REMOVE = """
    WITH gone AS (UPDATE chunk SET text = NULL WHERE text = 'secret' RETURNING corpus_id, id)
    DELETE FROM embedding e USING gone WHERE e.corpus_id = gone.corpus_id AND e.chunk_id = gone.id
"""
VECTORS_OF_TOMBSTONES = """
    SELECT e.generation_id FROM chunk k JOIN embedding e ON e.corpus_id = k.corpus_id AND e.chunk_id = k.id
    WHERE k.text IS NULL
"""


async def fill_overtaken_by_a_removal(services: Services, between: Model) -> list[Any]:
    """The vectors that a removed chunk has after all, since the model was asked before its removal."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "secret"), put("b", "ducks"))
    between.gated = {SMALL}
    generation = await begin(services)
    await between.asked.wait()
    await sql(services, REMOVE)
    between.may_answer.set()
    await built(services, generation)
    return await query(services.database.url, VECTORS_OF_TOMBSTONES)


async def test_g09_no_vector_is_added_to_a_chunk_that_was_removed_meanwhile(services: Services, between: Model) -> None:
    """The text has to be there when the vector is added, not only when the model is asked."""
    assert [] == await fill_overtaken_by_a_removal(services, between)


async def test_g09_anomaly_a_vector_is_added_to_a_chunk_that_was_removed_meanwhile(
    services: Services, between: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a look at the text, the vector of what was erased is back."""
    unconditional = str(vectors._ADD).replace("AND text IS NOT NULL", "")
    monkeypatch.setattr(vectors, "_ADD", text(unconditional))
    assert 1 == len(await fill_overtaken_by_a_removal(services, between))


async def test_one_generation_at_a_time_is_beside_the_serving_one(services: Services) -> None:
    """The same wish goes on with what there is; another is told what is in the way."""
    await make_corpus(services)
    with pytest.raises(EmbeddingUnchanged, match="generation 1 serves with this embedding already"):
        await begin(services, {"provider": "hashing"})
    generation = await begin(services)
    assert generation == await begin(services)
    with pytest.raises(GenerationInTheWay, match=f"generation {generation} is being built.*ragver index retire"):
        await begin(services, LARGER)
    await built(services, generation)
    former = (await cut_over(services, generation)).former
    with pytest.raises(GenerationInTheWay, match=f"generation {former} stands by for a rollback"):
        await begin(services, LARGER)
    with pytest.raises(GenerationInTheWay, match="serves already"):
        await cut_over(services, generation)
    with pytest.raises(GenerationInTheWay, match="serves; cut over to another one first"):
        await services.generations.retire(CORPUS, generation)
    await services.generations.retire(CORPUS, former)
    await services.generations.retire(CORPUS, former)
    with pytest.raises(GenerationInTheWay, match="retired; begin a new one"):
        await cut_over(services, former)
    with pytest.raises(GenerationNotFound, match="no index generation 77"):
        await cut_over(services, "77")
    with pytest.raises(GenerationNotFound, match="'x' is not the id"):
        await services.generations.get(CORPUS, "x")


@pytest.mark.parametrize(
    ("serving", "wanted"), [("hashing", "external"), ("external", "hashing")], ids=["to external", "from external"]
)
async def test_vectors_that_only_clients_have_are_not_migrated(services: Services, serving: str, wanted: str) -> None:
    """The error says what to do instead."""
    await make_corpus(services, embedding={"provider": serving, "dimensions": 4})
    with pytest.raises(InvalidRequest, match="make another corpus with the embedding that you want"):
        await begin(services, {"provider": wanted, "dimensions": 8})


async def test_a_cut_over_that_nobody_follows_lets_commits_go_on(
    unindexed: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an indexer it gives up after a bounded time, having changed nothing."""
    monkeypatch.setattr(service, "LOCKED_S_MAX", 0.05)
    await make_corpus(unindexed)
    generation = await built_beside(unindexed)
    await commit(unindexed, CORPUS, put("a", "ducks"))
    with pytest.raises(GenerationNotReady, match=r"did not catch up within 0.05 s, 3 times"):
        await cut_over(unindexed, generation)
    await commit(unindexed, CORPUS, put("b", "geese"))
    assert "geese" == texts(await retrieve(unindexed, query="geese"))[0]


async def collections(services: Services) -> list[str]:
    """The names of the collections that the ledger has ever had, of those that are in the index."""
    rows = await query(services.database.url, "SELECT collection FROM index_generation ORDER BY id")
    rows += await query(services.database.url, "SELECT collection FROM dropped_collection ORDER BY generation_id")
    names = dict.fromkeys(row["collection"] for row in rows)
    return [name for name in names if await services.index.exists(Collection(name, 1, Distance.COSINE))]


@pytest.mark.parametrize("end", ["retire", "delete the corpus"])
async def test_g10_collections_are_dropped_also_after_a_crash_between_the_stores(services: Services, end: str) -> None:
    """The ledger forgets first, and remembers what the index has still to forget."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "ducks"))
    info = await corpora.get(services.database, CORPUS)
    generation = await begin(services)
    await built(services, generation)
    assert 2 == len(await collections(services))
    if end == "retire":
        await lifecycle.retire(services.database, info.corpus_id, GenerationId(int(generation)))
    else:
        await corpora.delete(services.database, info.corpus_id)
    await Dropping(services.database, services.index, SystemClock()).sweep()

    left = 1 if end == "retire" else 0
    assert left == len(await collections(services))
    assert left == len(await query(services.database.url, "SELECT 1 FROM embedding"))


async def test_g09_a_removal_sees_a_vector_that_was_added_while_it_waited(unindexed: Services) -> None:
    """Whoever adds vectors holds their chunks; the removal that comes in between takes the new ones, too."""
    await make_corpus(unindexed)
    await commit(unindexed, CORPUS, put("a", "secret"))
    gone = await commit(unindexed, CORPUS, delete("a"))
    await sql(unindexed, "UPDATE corpus SET horizon = epoch")
    generation = GenerationId(int(await begin(unindexed, None)))
    info = await corpora.get(unindexed.database, CORPUS)
    (row,) = await query(unindexed.database.url, "SELECT id FROM chunk")
    chunk_id = ChunkId(row["id"])
    async with unindexed.database.transaction() as connection:
        await connection.fetch(vectors._COPY, {"corpus": info.corpus_id, "generation": generation, "ids": [chunk_id]})
        removing = retention.remove(unindexed.database, info.corpus_id, Epoch(gone.epoch), [chunk_id])
        waiting = asyncio.create_task(removing)
        await waits_for_a_lock(unindexed.database.url)
    assert 1 == await waiting
    assert [] == await query(unindexed.database.url, "SELECT 1 FROM embedding")


async def test_one_process_cuts_over_what_another_has_built_on_a_qdrant_server(
    database_url: str, tmp_path: Path
) -> None:
    """Whoever is asked, the leader does the work; also vectors that travelled over the wire are equal to the ledger."""
    with wire_server(tmp_path / "wire") as server:
        elsewhere: dict[str, Any] = {"qdrant_url": server.url}
        async with (
            open_test_services(database_url, tmp_path / "leader", indexing=True, **elsewhere),
            open_test_services(database_url, tmp_path / "asked", **elsewhere) as services,
        ):
            await make_corpus(services)
            await commit(services, CORPUS, put("a", "ducks"), put("b", "geese"))
            await commit(services, CORPUS, delete("b"))
            generation = await begin(services)
            await built(services, generation)
            former = (await cut_over(services, generation)).former
            await commit(services, CORPUS, put("c", "swans"))
            await built(services, former)
            await caught_up(services)
            assert [GenerationState.SERVING, GenerationState.STANDBY] == sorted(await check_generations(services))
            assert 3 == await check_index(services, CORPUS)
            await services.generations.retire(CORPUS, former)
            assert 1 == len(await collections(services))
