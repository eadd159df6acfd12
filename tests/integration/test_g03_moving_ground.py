"""G3: a retrieval holds to its epoch while commits, the indexer and the horizon move under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ragver import retrieval
from ragver.bootstrap import Services
from ragver.errors import CorpusNotFound, SnapshotExpired
from ragver.ledger import chunks, corpora, generations
from ragver.ledger.corpora import Head
from ragver.liveness import CorpusView
from ragver.types import ChunkId, Epoch, Level
from tests.support.five_commits import at_every_epoch, history, index_all_of_lost, points_of
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
from tests.support.spine import (
    EXTERNAL,
    chunk,
    collection,
    index_all,
    indexer_of,
    retrieve,
    second_process,
    sql,
    texts,
    watched,
)

pytestmark = pytest.mark.guarantee(3)

HR = {"field": "team", "eq": "hr"}


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, with a corpus of short vectors."""
    async with open_test_services(database_url, tmp_path / "data", index_wait_ms_max=0) as services:
        await make_corpus(services, embedding=EXTERNAL, filterable={"team": "keyword"})
        yield services


# ── four places where the protocol is easy to break ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("early", [False, True], ids=["with a fresh head", "while the head is read"])
async def test_g03_the_indexer_overtakes_a_search(stopped: Services, early: bool) -> None:
    """What the indexer applies between the head read and the search is in the tail: its bound was read before."""
    services, index = watched(stopped)
    await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1), chunk("a2", 2)]), put("b", chunks=[chunk("b1", 3)]))
    await index_all(services)
    if early:
        await retrieve(services)
    await commit(services, CORPUS, put("a", chunks=[chunk("a2", 2), chunk("a3", 0)]), delete("b"))

    async def overtake() -> None:
        await commit(services, CORPUS, put("c", chunks=[chunk("c1", 5)]))
        await index_all(services)

    index.after_search = overtake
    answer = await retrieve(services)
    assert {2: ["a3", "a2"], 3: ["a3", "a2", "c1"]}[answer.epoch] == texts(answer)
    index.before_search = overtake
    assert ["a3", "a2"] == texts(await retrieve(services, epoch=2))


async def test_g03_bounding_the_tail_by_a_later_applied_epoch_loses_chunks(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the applied epoch of the fresh head in place of the one from before the search."""
    monkeypatch.setattr("ragver.reading.Early.usable", lambda self, head: True)
    services, index = watched(stopped)
    await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    await index_all(services)
    await retrieve(services)
    await commit(services, CORPUS, put("b", chunks=[chunk("b1", 2)]))
    searched = asyncio.Event()

    async def release() -> None:
        searched.set()

    fresh = CorpusView.fresh

    async def late(view: CorpusView) -> Head:
        await searched.wait()
        await index_all(stopped)
        return await fresh(view)

    monkeypatch.setattr(CorpusView, "fresh", late)
    begun = retrieval._begun

    def by_the_later(*asked: Any) -> Any:
        reading = begun(*asked)
        reading.basis = reading.head
        return reading

    index.after_search = release
    assert ["a1", "b1"] == texts(await retrieve(services))
    monkeypatch.setattr(retrieval, "_begun", by_the_later)
    await commit(services, CORPUS, put("c", chunks=[chunk("c1", 3)]))
    searched.clear()
    index.after_search = release
    answer = await retrieve(services)
    assert (3, ["a1", "b1"]) == (answer.epoch, texts(answer))


async def test_g03_a_late_leader_repeats_old_writes(stopped: Services) -> None:
    """A leader that was paused applies what it had read long ago: no chunk comes back, no label is taken back."""
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 1)]), put("b", chunks=[chunk("b1", 2)]))
    (standing,) = await generations.all_of(stopped.database)
    old = await chunks.changes(
        stopped.database, standing.corpus, standing.generation.generation_id, (Epoch(0), ChunkId(0)), 10
    )
    await index_all(stopped)
    async with generations.elections(stopped.database) as elections:
        paused = await elections.lead(standing.corpus, standing.generation.generation_id)
    assert paused is not None
    await commit(stopped, CORPUS, delete("a"), set_acl("b", "group:hr"))
    await index_all(stopped)
    expected = await _raw(stopped)
    await indexer_of(stopped).apply(standing, old)
    assert expected == await _raw(stopped)
    assert not await generations.advance(stopped.database, paused, Epoch(1))
    assert [] == texts(await retrieve(stopped))
    assert ["a1"] == texts(await retrieve(stopped, epoch=1))
    assert ["a1", "b1"] == texts(await retrieve(stopped, epoch=1, principals=["group:hr"]))


async def _raw(services: Services) -> list[tuple[int, Any]]:
    stored = await services.index.scroll(await collection(services), None, 100)
    return [(point.chunk_id, point.payload) for point in stored]


@pytest.mark.parametrize("moved", ["before", "while searching"])
@pytest.mark.parametrize("by", ["epoch", "snapshot", "as_of"])
async def test_g03_the_horizon_passes_a_reader(stopped: Services, moved: str, by: str) -> None:
    """A read whose epoch the horizon passes is expired, never thinner; whether it had begun or not."""
    services, index = watched(stopped)
    await history(services)
    await index_all(services)
    token = (await retrieve(services, epoch=2)).snapshot
    times = {entry.epoch: entry.committed_at for entry in await services.catalog.commits(CORPUS, 0, 10)}
    how: dict[str, Any] = {by: {"epoch": 2, "snapshot": token, "as_of": times[2]}[by]}

    async def retire() -> None:
        dead = [point.chunk_id for text, point in (await points_of(services)).items() if text in ("a2", "b1")]
        await sql(services, "UPDATE corpus SET horizon = 3")
        await sql(services, "UPDATE chunk SET text = NULL WHERE died_epoch <= 3")
        await stopped.index.delete(await collection(services), dead)

    if moved == "before":
        await retire()
    else:
        index.before_search = retire
    with pytest.raises(SnapshotExpired):
        await retrieve(services, **how)
    assert ["c1", "a1", "a3"] == texts(await retrieve(services, epoch=3))


async def test_g03_without_the_last_look_the_horizon_thins_an_answer(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the last look at the ledger left out."""

    async def unlooked(*_: object) -> bool:
        return True

    monkeypatch.setattr("ragver.retrieval.Retrieval._confirmed", unlooked)
    services, index = watched(stopped)
    alive = await history(services)
    await index_all(services)

    async def retire() -> None:
        await sql(services, "UPDATE corpus SET horizon = 3")
        await sql(services, "UPDATE chunk SET text = NULL WHERE died_epoch <= 3")

    index.before_search = retire
    assert ["a1", "b1", "a3"] == alive[2]
    assert ["a1", "a3"] == texts(await retrieve(services, epoch=2))


async def test_g03_the_horizon_passes_a_stalled_read_of_the_head(stopped: Services) -> None:
    """A read of the head that stalls for longer than the retention is expired as well."""
    services, index = watched(stopped)
    await history(services)
    await index_all(services)

    async def stall() -> None:
        await commit(services, CORPUS, delete("d"))
        await sql(services, "UPDATE corpus SET horizon = 6")
        await sql(services, "UPDATE chunk SET text = NULL WHERE died_epoch <= 6")

    index.before_search = stall
    with pytest.raises(SnapshotExpired):
        await retrieve(services)


async def test_g03_reads_that_tolerate_age_never_fall_behind_the_horizon(stopped: Services) -> None:
    """bounded and at_least choose an epoch that can be read, however far behind the index is."""
    await history(stopped)
    await sql(stopped, "UPDATE corpus SET horizon = 3")
    assert 3 == (await retrieve(stopped, level=Level.BOUNDED)).epoch
    assert 3 == (await retrieve(stopped, level=Level.AT_LEAST, epoch=1)).epoch


# ── commits that land while a read is under way ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("known", ["nothing", "one of them"])
async def test_g03_hits_are_described_as_of_their_epoch(stopped: Services, known: str) -> None:
    """A commit that lands in mid-read shows in no hit: neither in part nor as a whole."""
    services, index = watched(await second_process(stopped))
    metadata = {"a": {"team": "it"}, "b": {"team": "hr"}, "c": {"team": "hr"}}
    puts = [
        put(key, title="old", metadata=metadata[key], chunks=[chunk(f"{key}1", rank)]) for rank, key in enumerate("abc")
    ]
    await commit(stopped, CORPUS, *puts)
    await index_all(stopped)
    if known == "one of them":
        await retrieve(services, filter={"field": "team", "eq": "it"})

    async def change() -> None:
        again = put("a", title="new", chunks=[chunk("b1", 1)])
        await commit(stopped, CORPUS, rename("a", "d"), rename("b", "a"), again, set_metadata("c", team="it"))

    index.after_search = change
    answer = await retrieve(services, epoch=1)
    assert [("a", "old", "a1"), ("b", "old", "b1"), ("c", "old", "c1")] == [
        (hit.document.key, hit.document.title, hit.text) for hit in answer.hits
    ]
    assert list(metadata.values()) == [hit.document.metadata for hit in answer.hits]
    answer = await retrieve(services)
    assert [("d", "a1"), ("a", "b1"), ("c", "c1")] == [(hit.document.key, hit.text) for hit in answer.hits]


async def test_g03_metadata_that_changes_in_mid_read_does_not_fool_a_filter(stopped: Services) -> None:
    """A filtered read begins anew when metadata changed under it."""
    services, index = watched(stopped)
    await commit(services, CORPUS, put("a", metadata={"team": "hr"}, chunks=[chunk("a1", 1)]))
    await index_all(services)

    async def change() -> None:
        await commit(services, CORPUS, set_metadata("a", team="it"))
        await index_all(services)

    index.before_search = change
    answer = await retrieve(services, epoch=1, filter=HR)
    assert ["a1"] == texts(answer)


async def test_g03_a_search_by_an_old_head_is_not_used(stopped: Services) -> None:
    """A process that has not looked for long does not read from the ledger what the index has long applied."""
    services = await second_process(stopped)
    await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    await index_all(services)
    await retrieve(services)
    for n in range(20):
        await commit(services, CORPUS, put(f"b{n}", chunks=[chunk(f"b{n}", 2 + n)]))
    await index_all(services)
    answer = await retrieve(services)
    assert (21, 0) == (len(answer.hits), answer.tail)


async def test_g03_a_tail_that_is_too_long_for_an_earlier_head_is_not_for_the_present_one(
    database_url: str, tmp_path: Path
) -> None:
    """One large commit, applied since the process last looked: the read goes by the present head instead."""
    async with open_test_services(database_url, tmp_path / "data", tail_rows_max=10, index_wait_ms_max=0) as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
        await index_all(services)
        await retrieve(services)
        other = await second_process(services)
        await commit(other, CORPUS, put("b", chunks=[chunk(f"b{n}", 2 + n) for n in range(20)]))
        await index_all(services)
        assert 21 == len((await retrieve(services)).hits)


async def test_g03_a_corpus_deleted_in_mid_read_is_not_an_empty_one(stopped: Services) -> None:
    services, index = watched(stopped)
    await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    await index_all(services)
    other = await second_process(services)

    async def remove() -> None:
        await corpora.delete(other.database, (await other.views.get(CORPUS)).info.corpus_id)

    index.after_search = remove
    with pytest.raises(CorpusNotFound):
        await retrieve(services)


@pytest.mark.parametrize("how", [{}, {"epoch": 1}, {"as_of": datetime.now(UTC) - timedelta(days=1)}])
async def test_g03_a_corpus_made_again_is_read_as_it_is_now(stopped: Services, how: dict[str, Any]) -> None:
    """Another process deleted the corpus and made one of the same name, with longer vectors and other fields."""
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    await index_all(stopped)
    await retrieve(stopped)
    other = await second_process(stopped)
    await other.catalog.delete(CORPUS)
    await make_corpus(other, embedding={"provider": "hashing", "dimensions": 64}, filterable={"year": "integer"})
    await commit(other, CORPUS, put("b", "Thirty days of leave.", metadata={"year": 2026}))
    answer = await retrieve(stopped, query="leave", filter={"field": "year", "eq": 2026}, **how)
    assert ([] if "as_of" in how else ["Thirty days of leave."]) == texts(answer)


# ── an index that was lost ──────────────────────────────────────────────────────────────────────────────────


async def test_g03_a_collection_made_anew_in_mid_read_is_not_believed(stopped: Services) -> None:
    """The collection was lost and made again, empty, after the head was read: the read begins anew."""
    services, index = watched(stopped)
    alive = await history(services)
    await index_all(services)

    async def lose() -> None:
        await stopped.index.drop(await collection(services))
        await stopped.index.ensure(await collection(services))
        await sql(services, "UPDATE index_generation SET applied_epoch = 0")

    index.before_search = lose
    assert alive[5] == texts(await retrieve(services))


async def test_g03_a_lost_collection_counts_as_empty_before_it_is_made_anew(stopped: Services) -> None:
    """Whenever the leader dies, and whoever reads meanwhile, nobody takes an empty collection for a full one."""
    alive = await history(stopped)
    await index_all(stopped)
    await stopped.index.drop(await collection(stopped))
    services, index = watched(stopped)

    class Died(Exception):
        pass

    async def die() -> None:
        raise Died

    index.before_ensure = index.after_ensure = die
    for _ in range(2):
        with pytest.raises(Died):
            await index_all_of_lost(services)
        assert 0 == (await stopped.catalog.corpus(CORPUS)).applied_epoch
        assert alive == await at_every_epoch(stopped)
    await index_all_of_lost(services)
    assert alive == await at_every_epoch(stopped)
