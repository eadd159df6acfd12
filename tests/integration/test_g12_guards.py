"""A reconciliation stops where something bigger is wrong, and a killed one goes on where it was."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import ReconciliationNotFound, ReconciliationRunning
from ragver.ledger import reconciliations
from ragver.types import DriftKind, History, RunState
from tests.support.child import child
from tests.support.drift import found, meddled, reconcile
from tests.support.ledger import check_index, query
from tests.support.postgres import new_database
from tests.support.qdrant_wire import WireServer, wire_server
from tests.support.services import CORPUS, caught_up, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, chunk, collection, index_all, indexer_of, sql

pytestmark = pytest.mark.guarantee(12)

POINTS = 200
WAIT_S_MAX = 30.0

# Reconciles slowly, and keeps its place after every few points.
RUNNER = """
import asyncio, sys
from pathlib import Path
from ragver.reconciler import run, streams
from tests.support.drift import reconcile
from tests.support.services import open_test_services

run.CHECKPOINT_S, streams.PAGE_POINTS_MAX = 0.0, 10

async def main(url, directory):
    async with open_test_services(url, Path(directory)) as services:
        print("ready", flush=True)
        await reconcile(services, repair=True, max_drift_ratio=1.0, points_per_s=100)

asyncio.run(main(*sys.argv[1:]))
"""


async def a_corpus(services: Services, points: int = POINTS) -> None:
    await make_corpus(services, embedding=EXTERNAL)
    await commit(services, CORPUS, *(put(f"d{rank}", chunks=[chunk(f"text {rank}", rank)]) for rank in range(points)))
    await index_all(services)


async def lose(services: Services, every: int) -> set[int]:
    """Take one point of so many out of the index; which ones."""
    where = await collection(services)
    points = await services.index.scroll(where, None, POINTS)
    lost = [point.chunk_id for point in points[::every]]
    await services.index.delete(where, lost)
    return set(lost)


# guards


async def test_g12_too_much_drift_stops_a_repair_before_it_changes_anything(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services)
        lost = await lose(services, every=5)

        stopped = await reconcile(services, repair=True)

        assert (RunState.STOPPED, len(lost)) == (stopped.state, stopped.counts[DriftKind.MISSING])
        assert "20.0% of 200 points differ" in str(stopped.detail)
        assert 0 == sum(stopped.repaired.values())
        assert POINTS - len(lost) == await services.index.count(await collection(services))
        mended = await reconcile(services, repair=True, max_drift_ratio=0.2)
        assert (RunState.COMPLETE, len(lost)) == (mended.state, mended.repaired[DriftKind.MISSING])


async def test_one_reconciliation_at_a_time_runs_in_a_corpus(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services)
        meddling, index = meddled(services)
        held, go_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            held.set()
            await go_on.wait()

        index.before_page = hold
        first = asyncio.create_task(reconcile(meddling))
        await held.wait()

        with pytest.raises(ReconciliationRunning):
            await reconcile(services)

        go_on.set()
        assert RunState.COMPLETE is (await first).state
        assert RunState.COMPLETE is (await reconcile(services)).state


async def test_a_run_that_is_not_there_is_not_found(services: Services) -> None:
    await make_corpus(services)
    for run_id in ("7", "last", "9" * 30, "²"):
        with pytest.raises(ReconciliationNotFound):
            await services.reconciler.get(CORPUS, run_id)


async def test_a_store_that_is_away_fails_the_run_and_says_so(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services, 3)
        await services.index.drop(await collection(services))

        failed = await _attempt(services)

        assert "index_unavailable" in failed


async def _attempt(services: Services) -> str:
    """What was said of a run that cannot be: by the run, or in its place."""
    try:
        run = await reconcile(services)
    except Exception as error:  # noqa: BLE001 - looked at by the caller
        return f"{error} ({getattr(error, 'code', '')})"
    assert RunState.FAILED is run.state
    return str(run.detail)


async def test_where_nothing_was_indexed_yet_only_an_empty_corpus_passes(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services)
        empty = await reconcile(services)
        await commit(services, CORPUS, put("a", "text"))

        run = await reconcile(services, repair=True)

        assert (RunState.COMPLETE, RunState.FAILED) == (empty.state, run.state)
        assert "not made the collection yet" in str(run.detail)


async def test_no_more_points_are_compared_a_second_than_asked_for(database_url: str, tmp_path: Path) -> None:
    """Measured by the clock that paces it, in whatever time the machine takes."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services)

        run = await reconcile(services, points_per_s=1_000)

        assert run.finished_at is not None
        assert (run.finished_at - run.started_at).total_seconds() >= POINTS / 1_000


# a killed run


@pytest.mark.slow
async def test_g12_a_killed_run_goes_on_where_it_was(database_url: str, tmp_path: Path) -> None:
    """All that was found before the kill is still there, nothing twice, and all of it is repaired."""
    directory = tmp_path / "data"
    async with open_test_services(database_url, directory) as services:
        await a_corpus(services)
        lost = await lose(services, every=3)
    with child(RUNNER, database_url, str(directory)) as runner:
        assert "ready" == runner.read()
        await _half_way(database_url)
        runner.kill()

    async with open_test_services(database_url, directory) as services:
        (left,) = await reconciliations.unfinished(services.database, (await services.views.get(CORPUS)).info.corpus_id)
        run = await reconcile(services, repair=True, max_drift_ratio=1.0, points_per_s=100)

        assert 0 < left.progress.points < POINTS
        assert (str(left.id), 1, POINTS) == (run.id, run.resumed, run.points)
        assert {DriftKind.MISSING: lost} == found(run)
        assert len(lost) == run.repaired[DriftKind.MISSING] == len(run.findings)
        assert all(finding.repaired for finding in run.findings)
        await check_index(services, CORPUS)


async def _half_way(url: str) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if await query(url, "SELECT 1 FROM reconciliation WHERE points > 40"):
                return
            await asyncio.sleep(0.01)


async def test_a_run_that_was_to_do_something_else_is_not_gone_on_with(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services, 5)
        run = await reconcile(services)
        await sql(services, "UPDATE reconciliation SET state = 'running', finished_at = NULL")

        other = await reconcile(services, repair=True)

        assert other.id != run.id
        assert RunState.FAILED is (await services.reconciler.get(CORPUS, run.id)).state


# restored stores


async def test_g12_an_index_from_a_backup_is_noticed_and_catches_up(database_url: str, tmp_path: Path) -> None:
    """What happened since the backup is applied again: births, deaths and all."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    async with open_test_services(database_url, data) as services:
        await a_corpus(services, 10)
    shutil.copytree(data / "index", backup)
    async with open_test_services(database_url, data) as services:
        await commit(services, CORPUS, delete("d3"), put("new", chunks=[chunk("new", 50)]))
        await index_all(services)
    shutil.rmtree(data / "index")
    shutil.copytree(backup, data / "index")

    async with open_test_services(database_url, data) as services:
        told = await reconcile(services)
        assert (History.INDEX_OLDER, 1, 1) == (
            told.history,
            told.counts[DriftKind.MISSING],
            told.counts[DriftKind.ZOMBIE],
        )
        await _noticed(services)
        assert (History.SAME, {}) == _of(await reconcile(services))
        await check_index(services, CORPUS)


async def _noticed(services: Services) -> None:
    """Let an indexer work until it has applied, and stamped, everything again."""
    indexer = asyncio.create_task(indexer_of(services).run())
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                if (await reconcile(services)).history is History.SAME:
                    break
                await asyncio.sleep(0.05)
        await caught_up(services)
    finally:
        indexer.cancel()
        await asyncio.wait([indexer])


def _of(run: wire.Reconciliation) -> tuple[History, dict[DriftKind, set[int]]]:
    return run.history, found(run)


async def test_g12_without_stamps_an_old_index_is_taken_for_a_current_one(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same backup, and an indexer that believes the ledger alone: the drift stays."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    async with open_test_services(database_url, data) as services:
        await a_corpus(services, 10)
    shutil.copytree(data / "index", backup)
    async with open_test_services(database_url, data) as services:
        await commit(services, CORPUS, delete("d3"))
        await index_all(services)
    shutil.rmtree(data / "index")
    shutil.copytree(backup, data / "index")
    monkeypatch.setattr("ragver.stamping.Sighting.held", None)

    async with open_test_services(database_url, data) as services:
        await index_all(services)

        assert 1 == (await reconcile(services)).counts[DriftKind.ZOMBIE]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WireServer]:
    with wire_server(tmp_path / "qdrant") as server:
        yield server


async def test_g12_a_collection_that_comes_back_empty_is_noticed_and_filled(
    database_url: str, tmp_path: Path, server: WireServer
) -> None:
    """It stands under its name as if nothing had happened, without points and without a stamp."""
    async with open_test_services(database_url, tmp_path / "data", qdrant_url=server.url) as services:
        await a_corpus(services, 10)
        where = await collection(services)
        await services.index.drop(where)
        await services.index.ensure(where)

        told = await reconcile(services)

        assert (History.EMPTIED, 10) == (told.history, told.counts[DriftKind.MISSING])
        assert "made anew from outside" in str(told.detail)
        stopped = await reconcile(services, repair=True)
        assert RunState.STOPPED is stopped.state
        await _noticed(services)
        assert (History.SAME, {}) == _of(await reconcile(services, verify_vectors=True))


@pytest.mark.parametrize("goes_on", [False, True])
async def test_g12_a_ledger_from_a_backup_is_noticed_and_the_index_brought_back_to_it(
    postgres_url: str, migrated_template: str, tmp_path: Path, goes_on: bool
) -> None:
    """Ids are given out a second time, so that a chunk finds the point of another under its id."""
    data = tmp_path / "data"
    with new_database(postgres_url, template=migrated_template) as url:
        async with open_test_services(url, data) as services:
            await a_corpus(services, 10)
        name = url.partition("@/")[2].partition("?")[0]
        with new_database(postgres_url, template=name) as backup:
            async with open_test_services(url, data) as services:
                await commit(services, CORPUS, delete("d3"), put("lost", chunks=[chunk("lost", 90)]))
                await index_all(services)

            async with open_test_services(backup, data) as services:
                if goes_on:
                    await commit(services, CORPUS, put("other", chunks=[chunk("other", 5)]))
                    await index_all(services)
                told = await reconcile(services)
                assert (History.FORKED if goes_on else History.LEDGER_OLDER) is told.history
                assert told.drift
                mended = await reconcile(services, repair=True, max_drift_ratio=1.0)
                assert mended.counts == mended.repaired

                assert (History.SAME, {}) == _of(await reconcile(services, verify_vectors=True))
                await check_index(services, CORPUS)


async def test_g12_the_index_of_another_ledger_is_left_alone(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services, 10)
        await lose(services, every=5)
        await sql(services, "UPDATE ledger SET id = gen_random_uuid()")

        stopped = await reconcile(services, repair=True, max_drift_ratio=1.0)

        assert (RunState.STOPPED, History.FOREIGN) == (stopped.state, stopped.history)
        assert "another ledger" in str(stopped.detail)
        assert 8 == await services.index.count(await collection(services))


# what is told of runs


async def test_runs_are_listed_with_the_last_success_by_the_ledgers_clock(services: Services) -> None:
    await make_corpus(services)
    before = await services.reconciler.recent(CORPUS, 10)
    await commit(services, CORPUS, put("a", "text"))
    await caught_up(services)
    runs = [await reconcile(services) for _ in range(3)]

    listed = await services.reconciler.recent(CORPUS, 2)

    assert ([], None) == (before.reconciliations, before.last_success)
    assert [runs[2].id, runs[1].id] == [run.id for run in listed.reconciliations]
    assert runs[2].started_at == listed.last_success
    assert runs[2].started_at <= listed.now


async def test_metrics_tell_of_drift_by_kind_and_of_the_last_success(database_url: str, tmp_path: Path) -> None:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await a_corpus(services, 20)
        await lose(services, every=10)
        await reconcile(services)
        await services.reconciler.measure()
        assert 2 == _metric(services, "ragver_drift", corpus=CORPUS, kind="missing")

        run = await reconcile(services, repair=True)
        await services.reconciler.measure()

        assert 0 == _metric(services, "ragver_drift", corpus=CORPUS, kind="missing")
        assert run.started_at.timestamp() == _metric(
            services, "ragver_reconciliation_last_success_timestamp_seconds", corpus=CORPUS
        )


def _metric(services: Services, name: str, **labels: str) -> Any:
    return services.metrics.registry.get_sample_value(name, labels)
