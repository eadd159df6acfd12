"""G3: a retrieval at an epoch returns what is alive at that epoch, whatever the index holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import EpochAhead, IndexLagging, IndexUnavailable
from ragver.index.port import Payload, Point, Search
from ragver.ledger import chunks
from ragver.types import ChunkId, DocumentId, Epoch, Level
from tests.support.five_commits import ALIVE, at_every_epoch, history, index_all_of_lost, points_of
from tests.support.services import (
    CORPUS,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_metadata,
)
from tests.support.spine import (
    EAST,
    EXTERNAL,
    chunk,
    collection,
    index_all,
    retrieve,
    second_process,
    texts,
)

pytestmark = pytest.mark.guarantee(3)

HR = {"field": "team", "eq": "hr"}


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, with a corpus of short vectors."""
    async with open_test_services(database_url, tmp_path / "data", index_wait_ms_max=0) as services:
        await make_corpus(services, embedding=EXTERNAL, filterable={"team": "keyword"})
        yield services


# ── wherever the indexer is ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("applied", range(6))
async def test_g03_the_indexer_is_stopped_lags_or_is_done(stopped: Services, applied: int) -> None:
    """Every epoch reads the same wherever the indexer stopped, in this process and in one that knows nothing yet."""
    alive = await history(stopped, applied=applied)
    assert alive == await at_every_epoch(stopped)
    assert alive == await at_every_epoch(await second_process(stopped))
    assert alive[5] == texts(await retrieve(stopped))
    await index_all(stopped)
    assert alive == await at_every_epoch(stopped)


async def test_g03_the_bare_index_shows_what_is_not_alive(stopped: Services) -> None:
    """The anomaly: what the index alone answers while it is behind, and what it answers for an older epoch."""
    alive = await history(stopped, applied=1)
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


async def test_g03_levels_choose_their_epoch(stopped: Services) -> None:
    """strong reads the head, bounded and at_least the newest that needs no tail, exact what it names."""
    await history(stopped, applied=2)
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


async def test_g03_as_of_reads_the_epoch_of_a_time(stopped: Services) -> None:
    """A time names the newest epoch committed by then, for ever the same."""
    alive = await history(stopped)
    for indexed in (False, True):
        if indexed:
            await index_all(stopped)
        for entry in await stopped.catalog.commits(CORPUS, 0, 10):
            answer = await retrieve(stopped, as_of=entry.committed_at)
            assert (entry.epoch, alive[entry.epoch]) == (answer.epoch, texts(answer))


async def test_g03_an_epoch_that_was_never_issued_cannot_be_read(stopped: Services) -> None:
    await history(stopped)
    with pytest.raises(EpochAhead):
        await retrieve(stopped, epoch=6)
    with pytest.raises(EpochAhead):
        await retrieve(stopped, level=Level.AT_LEAST, epoch=6)


# ── the same snapshot later ─────────────────────────────────────────────────────────────────────────────────


async def test_g03_a_snapshot_shows_the_same_documents_for_ever(stopped: Services) -> None:
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
async def test_g03_a_filter_means_the_metadata_of_the_snapshot(stopped: Services, indexed: str) -> None:
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


async def test_g03_a_corpus_indexed_anew_reads_the_same(stopped: Services) -> None:
    """All of the index comes from the ledger: with the collection lost and made again every epoch reads as before."""
    alive = await history(stopped)
    await index_all(stopped)
    await stopped.index.drop(await collection(stopped))
    with pytest.raises(IndexUnavailable):
        await retrieve(stopped)
    await index_all_of_lost(stopped)
    assert alive == await at_every_epoch(stopped)


# ── an index that is damaged ────────────────────────────────────────────────────────────────────────────────


async def _replace_points(services: Services, *points: Point) -> None:
    """Put other points in the place of those with the same id."""
    where = await collection(services)
    await services.index.delete(where, [point.chunk_id for point in points])
    await services.index.upsert(where, points)


async def test_g03_zombies_and_orphans_are_passed_over(stopped: Services) -> None:
    """Points whose death was lost, and points of no chunk at all, cost a wider search and nothing else."""
    alive = await history(stopped)
    await index_all(stopped)
    points = await points_of(stopped)
    everywhere: dict[str, Any] = {"died_epoch": None, "born_epoch": Epoch(0)}
    zombies = [replace(point, payload=replace(point.payload, **everywhere)) for point in points.values()]
    orphan = Payload(DocumentId(999), Epoch(1), None, Epoch(1), ["*"], {})
    orphans = [Point(ChunkId(10**9 + n), np.array(EAST, np.float32), orphan) for n in range(100)]
    beyond = Point(ChunkId(2**63 + 5), np.array(EAST, np.float32), orphan)
    await _replace_points(stopped, *zombies, *orphans, beyond)
    assert len(points) + 101 == len(await _bare_ids(stopped, limit=200))
    assert alive == await at_every_epoch(stopped)
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


async def test_g03_garbled_and_missing_points_only_thin_an_answer(stopped: Services) -> None:
    """Wrong labels, epochs and vectors, and points that are gone: what is returned is still alive, and its own text."""
    alive = await history(stopped)
    await index_all(stopped)
    points = await points_of(stopped)
    far = np.array([-1.0, 0, 0, 0], np.float32)
    garbled = {
        "a1": replace(points["a1"], payload=replace(points["a1"].payload, acl=["nobody"])),
        "a3": replace(points["a3"], vector=far),
        "b1": replace(points["b1"], payload=replace(points["b1"].payload, died_epoch=Epoch(1))),
        "c1": replace(points["c1"], payload=replace(points["c1"].payload, born_epoch=Epoch(10**6))),
    }
    await _replace_points(stopped, *garbled.values())
    await stopped.index.delete(await collection(stopped), [points["d1"].chunk_id])
    found = await at_every_epoch(stopped)
    assert {0: [], 1: ["a2"], 2: ["a3"], 3: ["a3"], 4: ["a3"], 5: ["c1"]} == found
    assert all(set(found[epoch]) <= set(alive[epoch]) for epoch in found)


async def test_g03_labels_and_metadata_that_are_too_open_let_nothing_through(stopped: Services) -> None:
    """What the index wrongly lets everybody read, the ledger does not."""
    await commit(
        stopped, CORPUS, put("a", acl=["group:hr"], chunks=[chunk("a1", 1)]), put("b", chunks=[chunk("b1", 2)])
    )
    await index_all(stopped)
    await _replace_points(stopped, *(await points_of(stopped)).values())
    assert 2 == len(await _bare_ids(stopped, limit=50))
    assert ["b1"] == texts(await retrieve(stopped, epoch=1))
    assert ["a1", "b1"] == texts(await retrieve(stopped, epoch=1, principals=["group:hr"]))


async def test_g03_more_damage_than_can_be_looked_through_is_an_error(
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


async def test_g03_tail_hits_are_not_crowded_out_by_zombies(stopped: Services) -> None:
    """Points that the ledger does not confirm take no place away from chunks that only the ledger has."""
    await commit(stopped, CORPUS, put("a", chunks=[chunk(f"a{n}", n) for n in range(17)]))
    await index_all(stopped)
    points = await points_of(stopped)
    await commit(stopped, CORPUS, delete("a"))
    await index_all(stopped)
    await _replace_points(stopped, *points.values())
    await commit(stopped, CORPUS, put("b", chunks=[chunk(f"b{n:02}", 20 + n) for n in range(30)]))
    assert [f"b{n:02}" for n in range(10)] == texts(await retrieve(stopped, k=10))
