"""G3: a retrieval at an epoch returns what is alive at that epoch, whatever the index holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragver import retrieval, wire
from ragver.bootstrap import Services
from ragver.errors import CorpusNotFound, EpochAhead, IndexLagging, IndexUnavailable, SnapshotExpired
from ragver.index.port import Payload, Point, Search
from ragver.ledger import chunks, corpora, generations
from ragver.ledger.corpora import Head
from ragver.liveness import CorpusView
from ragver.types import ChunkId, DocumentId, Epoch, Level
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
    EAST,
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


COMMITS: list[list[wire.Operation]] = [
    [put("a", chunks=[chunk("a1", 1), chunk("a2", 2)]), put("b", chunks=[chunk("b1", 3)])],
    [put("a", chunks=[chunk("a1", 1), chunk("a3", 4)])],
    [delete("b"), put("c", chunks=[chunk("c1", 0)])],
    [rename("c", "b")],
    [delete("a"), put("d", chunks=[chunk("d1", 5)])],
]
ALIVE = {
    0: [],
    1: ["a1", "a2", "b1"],
    2: ["a1", "b1", "a3"],
    3: ["c1", "a1", "a3"],
    4: ["c1", "a1", "a3"],
    5: ["c1", "d1"],
}
"""What is alive at each epoch, best first."""


async def _history(services: Services, *, applied: int = 0) -> dict[int, list[str]]:
    """Births, an edit, a rename and deaths, with an indexer that stops after `applied` of the commits."""
    for epoch, operations in enumerate(COMMITS, 1):
        await commit(services, CORPUS, *operations)
        if epoch == applied:
            await index_all(services)
    return ALIVE


async def _at_every_epoch(services: Services) -> dict[int, list[str]]:
    return {epoch: texts(await retrieve(services, epoch=epoch)) for epoch in ALIVE}


# ── wherever the indexer is ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("applied", range(6))
async def test_the_indexer_is_stopped_lags_or_is_done(stopped: Services, applied: int) -> None:
    """Every epoch reads the same wherever the indexer stopped, in this process and in one that knows nothing yet."""
    alive = await _history(stopped, applied=applied)
    assert alive == await _at_every_epoch(stopped)
    assert alive == await _at_every_epoch(await second_process(stopped))
    assert alive[5] == texts(await retrieve(stopped))
    await index_all(stopped)
    assert alive == await _at_every_epoch(stopped)


async def test_the_bare_index_shows_what_is_not_alive(stopped: Services) -> None:
    """The anomaly: what the index alone answers while it is behind, and what it answers for an older epoch."""
    alive = await _history(stopped, applied=1)
    assert set(alive[1]) == await _bare(stopped, epoch=5)
    assert {"c1", "d1"} == set(alive[5])
    await index_all(stopped)
    assert {"a1", "a2", "a3", "b1", "c1", "d1"} == await _bare(stopped, epoch=0, may_hold_newer=False)


async def _bare(services: Services, **search: Any) -> set[str]:
    where = Search(np.array(EAST, np.float32), 50, principals=(), **search)
    found = await services.index.search(await collection(services), where)
    corpus = (await services.views.get(CORPUS)).info.corpus_id
    records = await chunks.records(services.database, corpus, [match.chunk_id for match in found])
    return {record.text or "" for record in records.by_id.values()}


async def test_levels_choose_their_epoch(stopped: Services) -> None:
    """strong reads the head, bounded and at_least the newest that needs no tail, exact what it names."""
    await _history(stopped, applied=2)
    found = {
        "strong": await retrieve(stopped, level=Level.STRONG),
        "bounded": await retrieve(stopped, level=Level.BOUNDED),
        "bounded by 1": await retrieve(stopped, level=Level.BOUNDED, max_lag_epochs=1),
        "at_least 1": await retrieve(stopped, level=Level.AT_LEAST, epoch=1),
        "at_least 3": await retrieve(stopped, level=Level.AT_LEAST, epoch=3),
        "exact 1": await retrieve(stopped, level=Level.EXACT, epoch=1),
    }
    expected = {"strong": 5, "bounded": 2, "bounded by 1": 4, "at_least 1": 2, "at_least 3": 3, "exact 1": 1}
    assert expected == {name: answer.epoch for name, answer in found.items()}
    assert {name: ALIVE[epoch] for name, epoch in expected.items()} == {name: texts(a) for name, a in found.items()}
    assert {(5, 2)} == {(answer.head, answer.applied_epoch) for answer in found.values()}


async def test_as_of_reads_the_epoch_of_a_time(stopped: Services) -> None:
    """A time names the newest epoch committed by then, for ever the same."""
    alive = await _history(stopped)
    for indexed in (False, True):
        if indexed:
            await index_all(stopped)
        for entry in await stopped.catalog.commits(CORPUS, 0, 10):
            answer = await retrieve(stopped, as_of=entry.committed_at)
            assert (entry.epoch, alive[entry.epoch]) == (answer.epoch, texts(answer))


async def test_an_epoch_that_was_never_issued_cannot_be_read(stopped: Services) -> None:
    await _history(stopped)
    with pytest.raises(EpochAhead):
        await retrieve(stopped, epoch=6)
    with pytest.raises(EpochAhead):
        await retrieve(stopped, level=Level.AT_LEAST, epoch=6)


# ── the same snapshot later ─────────────────────────────────────────────────────────────────────────────────


async def test_a_snapshot_shows_the_same_documents_for_ever(stopped: Services) -> None:
    """Later edits, renames, descriptions and deaths, applied or not, change nothing about what was read."""
    await commit(stopped, CORPUS, put("a", title="A", metadata={"n": 1}, chunks=[chunk("a1", 1), chunk("a2", 2)]))
    before = await retrieve(stopped)
    for change in (
        put("a", title="B", metadata={"n": 2}, chunks=[chunk("a1", 1)]),
        rename("a", "b"),
        set_metadata("b", n=3),
        delete("b"),
        put("a", title="C", chunks=[chunk("a1", 1)]),
    ):
        await commit(stopped, CORPUS, change)
        assert before.hits == (await retrieve(stopped, snapshot=before.snapshot)).hits
        await index_all(stopped)
        assert before.hits == (await retrieve(stopped, snapshot=before.snapshot)).hits


@pytest.mark.parametrize("indexed", ["always", "at the end", "never"])
async def test_a_filter_means_the_metadata_of_the_snapshot(stopped: Services, indexed: str) -> None:
    """The same filter at the same snapshot finds the same, however the metadata changed since."""

    async def step(*operations: wire.Operation) -> None:
        await commit(stopped, CORPUS, *operations)
        if indexed == "always":
            await index_all(stopped)

    hr, it = {"team": "hr"}, {"team": "it"}
    await step(put("a", metadata=hr, chunks=[chunk("a1", 1)]), put("b", metadata=it, chunks=[chunk("b1", 2)]))
    await step(set_metadata("a", team="it"), put("b", metadata=hr, chunks=[chunk("b1", 2), chunk("b2", 3)]))
    await step(delete("a"), put("b", metadata=hr, chunks=[chunk("b2", 3)]))
    await step(put("a", metadata=hr, chunks=[chunk("a3", 4)]))
    await step(delete("b"))
    await step(put("b", metadata=it, chunks=[chunk("b6", 6)]))
    if indexed == "at the end":
        await index_all(stopped)
    expected = {1: ["a1"], 2: ["b1", "b2"], 3: ["b2"], 4: ["b2", "a3"], 5: ["a3"], 6: ["a3"]}
    assert expected == {epoch: texts(await retrieve(stopped, epoch=epoch, filter=HR)) for epoch in expected}
    others = {1: ["b1"], 2: ["a1"], 3: [], 4: [], 5: [], 6: ["b6"]}
    found = {epoch: texts(await retrieve(stopped, epoch=epoch, filter={"not": HR})) for epoch in others}
    assert others == found


async def test_a_corpus_indexed_anew_reads_the_same(stopped: Services) -> None:
    """All of the index comes from the ledger: with the collection lost and made again every epoch reads as before."""
    alive = await _history(stopped)
    await index_all(stopped)
    await stopped.index.drop(await collection(stopped))
    with pytest.raises(IndexUnavailable):
        await retrieve(stopped)
    await index_all_of_lost(stopped)
    assert alive == await _at_every_epoch(stopped)


async def index_all_of_lost(services: Services) -> None:
    """An indexer finds the collection lost when it starts, and fills a new one."""
    (standing,) = await generations.all_of(services.database)
    indexer = indexer_of(services)
    async with generations.elections(services.database) as elections:
        while await indexer._step(elections, standing):
            (standing,) = await generations.all_of(services.database)
    assert (standing.head, standing.head) == (standing.applied, standing.head)


# ── an index that is damaged ────────────────────────────────────────────────────────────────────────────────


async def _points(services: Services) -> dict[str, Point]:
    """The points that the index holds, by the text of their chunk, as they should be."""
    (standing,) = await generations.all_of(services.database)
    generation = standing.generation.generation_id
    found = await chunks.changes(services.database, standing.corpus, generation, (Epoch(0), ChunkId(0)), 1_000)
    records = await chunks.records(services.database, standing.corpus, [change.chunk_id for change in found])
    points = {}
    for change in found:
        assert change.vector is not None
        payload = Payload(change.document_id, change.born_epoch, change.died_epoch, change.touched_epoch, ["*"], {})
        points[records.by_id[change.chunk_id].text or ""] = Point(change.chunk_id, change.vector, payload)
    return points


async def _replace_points(services: Services, *points: Point) -> None:
    """Put other points in the place of those with the same id."""
    where = await collection(services)
    await services.index.delete(where, [point.chunk_id for point in points])
    await services.index.upsert(where, points)


async def test_zombies_and_orphans_are_passed_over(stopped: Services) -> None:
    """Points whose death was lost, and points of no chunk at all, cost a wider search and nothing else."""
    alive = await _history(stopped)
    await index_all(stopped)
    points = await _points(stopped)
    everywhere: dict[str, Any] = {"died_epoch": None, "born_epoch": Epoch(0)}
    zombies = [replace(point, payload=replace(point.payload, **everywhere)) for point in points.values()]
    orphan = Payload(DocumentId(999), Epoch(1), None, Epoch(1), ["*"], {})
    orphans = [Point(ChunkId(10**9 + n), np.array(EAST, np.float32), orphan) for n in range(100)]
    beyond = Point(ChunkId(2**63 + 5), np.array(EAST, np.float32), orphan)
    await _replace_points(stopped, *zombies, *orphans, beyond)
    assert len(points) + 101 == len(await _bare_ids(stopped, limit=200))
    assert alive == await _at_every_epoch(stopped)
    for k in (1, 2, 3):
        assert alive[2][:k] == texts(await retrieve(stopped, epoch=2, k=k))
    dropped = {
        sample.labels["reason"]: sample.value
        for metric in stopped.metrics.dropped.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert dropped["not_alive"] >= 6 * 101


async def _bare_ids(services: Services, limit: int) -> list[int]:
    where = Search(np.array(EAST, np.float32), limit, epoch=Epoch(5), principals=())
    return [match.chunk_id for match in await services.index.search(await collection(services), where)]


async def test_garbled_and_missing_points_only_thin_an_answer(stopped: Services) -> None:
    """Wrong labels, epochs and vectors, and points that are gone: what is returned is still alive, and its own text."""
    alive = await _history(stopped)
    await index_all(stopped)
    points = await _points(stopped)
    far = np.array([-1.0, 0, 0, 0], np.float32)
    garbled = {
        "a1": replace(points["a1"], payload=replace(points["a1"].payload, acl=["nobody"])),
        "a3": replace(points["a3"], vector=far),
        "b1": replace(points["b1"], payload=replace(points["b1"].payload, died_epoch=Epoch(1))),
        "c1": replace(points["c1"], payload=replace(points["c1"].payload, born_epoch=Epoch(10**6))),
    }
    await _replace_points(stopped, *garbled.values())
    await stopped.index.delete(await collection(stopped), [points["d1"].chunk_id])
    found = await _at_every_epoch(stopped)
    assert {0: [], 1: ["a2"], 2: ["a3"], 3: ["a3"], 4: ["a3"], 5: ["c1"]} == found
    assert all(set(found[epoch]) <= set(alive[epoch]) for epoch in found)


async def test_labels_and_metadata_that_are_too_open_let_nothing_through(stopped: Services) -> None:
    """What the index wrongly lets everybody read, the ledger does not."""
    await commit(
        stopped, CORPUS, put("a", acl=["group:hr"], chunks=[chunk("a1", 1)]), put("b", chunks=[chunk("b1", 2)])
    )
    await index_all(stopped)
    await _replace_points(stopped, *(await _points(stopped)).values())
    assert 2 == len(await _bare_ids(stopped, limit=50))
    assert ["b1"] == texts(await retrieve(stopped, epoch=1))
    assert ["a1", "b1"] == texts(await retrieve(stopped, epoch=1, principals=["group:hr"]))


async def test_more_damage_than_can_be_looked_through_is_an_error(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing but orphans comes back up to the widest search, there is no answer and not an empty one."""
    monkeypatch.setattr("ragver.retrieval.SEARCH_LIMIT_MAX", 100)
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a1", 50)]))
    await index_all(stopped)
    orphan = Payload(DocumentId(999), Epoch(1), None, Epoch(1), ["*"], {})
    points = [Point(ChunkId(10**9 + n), np.array(EAST, np.float32), orphan) for n in range(100)]
    await stopped.index.upsert(await collection(stopped), points[:99])
    assert ["a1"] == texts(await retrieve(stopped, k=1))
    await stopped.index.upsert(await collection(stopped), points)
    with pytest.raises(IndexLagging, match="reconcile"):
        await retrieve(stopped, k=1)


async def test_tail_hits_are_not_crowded_out_by_zombies(stopped: Services) -> None:
    """Points that the ledger does not confirm take no place away from chunks that only the ledger has."""
    await commit(stopped, CORPUS, put("a", chunks=[chunk(f"a{n}", n) for n in range(17)]))
    await index_all(stopped)
    points = await _points(stopped)
    await commit(stopped, CORPUS, delete("a"))
    await index_all(stopped)
    await _replace_points(stopped, *points.values())
    await commit(stopped, CORPUS, put("b", chunks=[chunk(f"b{n:02}", 20 + n) for n in range(30)]))
    assert [f"b{n:02}" for n in range(10)] == texts(await retrieve(stopped, k=10))


# ── four places where the protocol is easy to break ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("early", [False, True], ids=["with a fresh head", "while the head is read"])
async def test_the_indexer_overtakes_a_search(stopped: Services, early: bool) -> None:
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


async def test_bounding_the_tail_by_a_later_applied_epoch_loses_chunks(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the applied epoch of the fresh head in place of the one from before the search."""
    monkeypatch.setattr("ragver.retrieval._Early.usable", lambda self, head: True)
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


async def test_a_late_leader_repeats_old_writes(stopped: Services) -> None:
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
async def test_the_horizon_passes_a_reader(stopped: Services, moved: str, by: str) -> None:
    """A read whose epoch the horizon passes is expired, never thinner; whether it had begun or not."""
    services, index = watched(stopped)
    await _history(services)
    await index_all(services)
    token = (await retrieve(services, epoch=2)).snapshot
    times = {entry.epoch: entry.committed_at for entry in await services.catalog.commits(CORPUS, 0, 10)}
    how: dict[str, Any] = {by: {"epoch": 2, "snapshot": token, "as_of": times[2]}[by]}

    async def retire() -> None:
        dead = [point.chunk_id for text, point in (await _points(services)).items() if text in ("a2", "b1")]
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


async def test_without_the_last_look_the_horizon_thins_an_answer(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the last look at the ledger left out."""

    async def unlooked(*_: object) -> bool:
        return True

    monkeypatch.setattr("ragver.retrieval.Retrieval._confirmed", unlooked)
    services, index = watched(stopped)
    alive = await _history(services)
    await index_all(services)

    async def retire() -> None:
        await sql(services, "UPDATE corpus SET horizon = 3")
        await sql(services, "UPDATE chunk SET text = NULL WHERE died_epoch <= 3")

    index.before_search = retire
    assert ["a1", "b1", "a3"] == alive[2]
    assert ["a1", "a3"] == texts(await retrieve(services, epoch=2))


async def test_the_horizon_passes_a_stalled_read_of_the_head(stopped: Services) -> None:
    """A read of the head that stalls for longer than the retention is expired as well."""
    services, index = watched(stopped)
    await _history(services)
    await index_all(services)

    async def stall() -> None:
        await commit(services, CORPUS, delete("d"))
        await sql(services, "UPDATE corpus SET horizon = 6")
        await sql(services, "UPDATE chunk SET text = NULL WHERE died_epoch <= 6")

    index.before_search = stall
    with pytest.raises(SnapshotExpired):
        await retrieve(services)


async def test_reads_that_tolerate_age_never_fall_behind_the_horizon(stopped: Services) -> None:
    """bounded and at_least choose an epoch that can be read, however far behind the index is."""
    await _history(stopped)
    await sql(stopped, "UPDATE corpus SET horizon = 3")
    assert 3 == (await retrieve(stopped, level=Level.BOUNDED)).epoch
    assert 3 == (await retrieve(stopped, level=Level.AT_LEAST, epoch=1)).epoch


# ── commits that land while a read is under way ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("known", ["nothing", "one of them"])
async def test_hits_are_described_as_of_their_epoch(stopped: Services, known: str) -> None:
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


async def test_metadata_that_changes_in_mid_read_does_not_fool_a_filter(stopped: Services) -> None:
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


async def test_a_search_by_an_old_head_is_not_used(stopped: Services) -> None:
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


async def test_a_tail_that_is_too_long_for_an_earlier_head_is_not_for_the_present_one(
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


async def test_a_corpus_deleted_in_mid_read_is_not_an_empty_one(stopped: Services) -> None:
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
async def test_a_corpus_made_again_is_read_as_it_is_now(stopped: Services, how: dict[str, Any]) -> None:
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


async def test_a_collection_made_anew_in_mid_read_is_not_believed(stopped: Services) -> None:
    """The collection was lost and made again, empty, after the head was read: the read begins anew."""
    services, index = watched(stopped)
    alive = await _history(services)
    await index_all(services)

    async def lose() -> None:
        await stopped.index.drop(await collection(services))
        await stopped.index.ensure(await collection(services))
        await sql(services, "UPDATE index_generation SET applied_epoch = 0")

    index.before_search = lose
    assert alive[5] == texts(await retrieve(services))


async def test_a_lost_collection_counts_as_empty_before_it_is_made_anew(stopped: Services) -> None:
    """Whenever the leader dies, and whoever reads meanwhile, nobody takes an empty collection for a full one."""
    alive = await _history(stopped)
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
        assert alive == await _at_every_epoch(stopped)
    await index_all_of_lost(services)
    assert alive == await _at_every_epoch(stopped)
