"""Reconciliation over HTTP and from the command line: what is answered when, and the exit statuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragver.bootstrap import Services
from ragver.types import DriftKind
from tests.support.api import client_of
from tests.support.cli import CommandLine
from tests.support.drift import meddled
from tests.support.postgres import open_directory, run_apart
from tests.support.services import CORPUS, caught_up, commit, make_corpus, open_test_services, put
from tests.support.spine import collection

RUNS = f"/v1/corpora/{CORPUS}/reconciliations"
WAIT_S_MAX = 30.0


async def test_a_run_is_answered_when_it_has_ended_or_with_202_before(services: Services) -> None:
    """And while it lasts, no other begins."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "text"))
    await caught_up(services)
    meddling, index = meddled(services)
    go_on = asyncio.Event()
    index.before_page = go_on.wait

    async with client_of(meddling) as client:
        begun = await client.post(RUNS, params={"wait_s": 0}, json={})
        refused = await client.post(RUNS, json={"repair": True})
        go_on.set()
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                ended = (await client.get(f"{RUNS}/{begun.json()['id']}")).json()
                if ended["state"] != "running":
                    break
                await asyncio.sleep(0.01)
        at_once = await client.post(RUNS, json={})

    assert (202, "running") == (begun.status_code, begun.json()["state"])
    assert (409, "reconciliation_running") == (refused.status_code, refused.json()["code"])
    assert ("complete", {kind.value: 0 for kind in DriftKind}) == (ended["state"], ended["counts"])
    assert (201, "complete", 1) == (at_once.status_code, at_once.json()["state"], at_once.json()["points"])


@pytest.mark.parametrize(
    "body", [{"max_drift_ratio": 1.1}, {"max_drift_ratio": -0.1}, {"points_per_s": 0}, {"repair": True, "fast": True}]
)
async def test_a_request_that_makes_no_sense_is_refused(services: Services, body: dict[str, object]) -> None:
    await make_corpus(services)
    async with client_of(services) as client:
        refused = await client.post(RUNS, json=body)
        unknown = await client.get(f"{RUNS}/12")

    assert 422 == refused.status_code
    assert (404, "reconciliation_not_found") == (unknown.status_code, unknown.json()["code"])


# the command line


@pytest.fixture
def ragver() -> Iterator[CommandLine]:
    """The command line on a directory with one corpus of twenty pages."""
    with open_directory() as directory:
        ragver = CommandLine(directory / ".ragver")
        pages = directory / "pages"
        pages.mkdir()
        for number in range(20):
            (pages / f"p{number}.md").write_text(f"page {number}")
        assert 0 == ragver("import", pages, "--corpus", CORPUS).status
        run_apart(_index(ragver.data_dir))
        yield ragver


async def _index(data_dir: Path) -> None:
    async with open_test_services(None, data_dir, indexing=True) as services:
        await caught_up(services)


async def _lose_one(data_dir: Path) -> None:
    async with open_test_services(None, data_dir) as services:
        where = await collection(services)
        (first,) = await services.index.scroll(where, None, 1)
        await services.index.delete(where, [first.chunk_id])


@pytest.mark.slow
def test_the_exit_status_says_whether_drift_is_left(ragver: CommandLine, tmp_path: Path) -> None:
    """No drift, found, too much to repair, repaired; and the page tells of all of these runs."""
    report = tmp_path / "drift.html"
    clean = ragver("reconcile")
    run_apart(_lose_one(ragver.data_dir))

    told = ragver("reconcile", "--json")
    stopped = ragver("reconcile", "--repair", "--max-drift-ratio", "0.01")
    mended = ragver("reconcile", "--repair", "--report", report)
    after = ragver("reconcile", "--json")

    assert [0, 1, 1, 0, 0] == [run.status for run in (clean, told, stopped, mended, after)]
    assert ["drift", "none"] == clean.rows[-1]
    assert 1 == json.loads(told.out)["counts"]["missing"]
    assert "nothing was changed" in stopped.out
    assert ["missing", "1", "1"] in mended.rows
    assert 0 == after.json["drift"]
    assert 3 == report.read_text(encoding="utf-8").count("1 missing</title>")


@pytest.mark.slow
def test_a_nightly_reconciler_makes_up_for_the_night_that_it_missed(ragver: CommandLine) -> None:
    """At once, since there was none yet; and then it waits."""
    with ragver.running("reconcile", "--nightly", "03:00", "--repair") as nightly:
        assert nightly.stderr is not None
        said = next(entry for line in nightly.stderr if '"nightly_done"' in line for entry in [json.loads(line)])

        assert (CORPUS, "complete", {}) == (said["corpus"], said["state"], said["drift"])
        assert nightly.poll() is None


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    refused = CommandLine(tmp_path)("reconcile", "--nightly", "3 o'clock")

    assert (2, "") == (refused.status, refused.out)
    assert "like 03:00" in refused.err
