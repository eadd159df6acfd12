"""`ragver.open`: the client's interface over stores in this process, asynchronous and synchronous."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ragver
from ragver.client import ApiError
from ragver.embedded.datadir import DataDir
from ragver.errors import DataDirInUse, SettingsInvalid
from ragver.types import CitationStatus, Decision
from tests.support.server import environment, running_server

TEXT = "Everyone has 30 days of leave a year."
ANSWER = "You have 30 days of leave a year [1]."
QUESTION = "How many days of leave?"


@pytest.fixture(autouse=True)
def only_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def opened(module_data_dir: Path) -> Iterator[ragver.Client]:
    with ragver.open(module_data_dir) as client:
        client.create_corpus("policies", verdict_ttl_ms=50)
        yield client


def test_both_faces_on_one_directory_one_after_the_other(data_dir: Path) -> None:
    async def written() -> ragver.Verdict:
        async with ragver.open(data_dir) as client:
            await client.create_corpus("policies")
            policies = client["policies"]
            await policies.put("leave.md", TEXT)
            found = await policies.retrieve(QUESTION)
            return await policies.validate(found.snapshot, answer=ANSWER)

    assert Decision.PASS is asyncio.run(written()).verdict

    opening = ragver.open(data_dir)
    with opening as client:
        policies = client["policies"]
        found = policies.retrieve(QUESTION)
        policies.delete("leave.md")
        verdict = policies.validate(found.snapshot, answer=ANSWER)
        with pytest.raises(ApiError, match="open already"), opening:
            pass
        assert DataDir(data_dir).holder() is not None
    assert (Decision.REJECT, CitationStatus.DELETED) == (verdict.verdict, verdict.citations[0].status)

    with pytest.raises(ApiError, match="nowhere"), opening as client:
        client["nowhere"].describe()
    assert DataDir(data_dir).holder() is None
    assert "closed" in repr(client)


def test_a_directory_is_opened_once_at_a_time(opened: ragver.Client, module_data_dir: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataDirInUse, match=r"ragver\.open"), ragver.open(module_data_dir):
            pass

    assert "policies" == opened.corpora()[0].name


def test_the_feed_follows_in_process_too(opened: ragver.Client) -> None:
    policies = opened["policies"]
    since = policies.put("feed.md", "one").epoch
    feed = policies.follow(since=since - 1)
    assert since == next(feed).epoch
    assert since + 1 == policies.put("feed.md", "two").epoch == next(feed).epoch


def test_threads_share_a_client(opened: ragver.Client) -> None:
    """Sixteen writers in eight threads: every commit once, every epoch taken once."""
    policies = opened["policies"]
    before = policies.describe().head
    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(lambda number: policies.put(f"thread-{number}.md", TEXT).epoch, range(16)))

    assert list(range(before + 1, before + 17)) == sorted(epochs)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client["nowhere"].retrieve(QUESTION), "corpus_not_found"),
        (lambda client: client["policies"].document("nothing.md"), "document_not_found"),
        (lambda client: client["policies"].validate("no token", answer=ANSWER), "snapshot_invalid"),
        (lambda client: list(client["nowhere"].follow()), "corpus_not_found"),
        (lambda client: client.create_corpus("policies"), "corpus_exists"),
    ],
)
def test_errors_are_those_of_a_server(opened: ragver.Client, call: Callable[[ragver.Client], Any], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        call(opened)

    assert code == caught.value.code
    assert 400 <= caught.value.status < 500


def test_what_is_there_already_will_do(opened: ragver.Client) -> None:
    assert 50 == opened.create_corpus("policies", verdict_ttl_ms=2_000, exist_ok=True).verdict_ttl_ms


def test_a_server_on_the_directory_is_found_and_used(data_dir: Path) -> None:
    with running_server(data_dir) as server, ragver.open(data_dir) as client:
        client.create_corpus("policies")

        assert f"Client({server.url!r})" == repr(client)
        assert DataDir(data_dir).holder() is not None


def test_a_setting_that_there_is_not_is_refused(data_dir: Path) -> None:
    with pytest.raises(SettingsInvalid, match="indexer_pol_ms"), ragver.open(data_dir, indexer_pol_ms=5):
        pass
    with pytest.raises(SettingsInvalid, match="RAGVER_INDEXER_POLL_MS"), ragver.open(data_dir, indexer_poll_ms=-5):
        pass

    assert not data_dir.exists()


def test_stdout_is_the_applications(data_dir: Path) -> None:
    """ragver's log goes to `logging`, where an application that wants it finds it."""
    script = """
import logging, sys
logging.basicConfig(level="INFO", stream=sys.stderr, format="%(name)s %(message)s")
import ragver
with ragver.open(sys.argv[1]) as client:
    from ragver.telemetry import logger
    logger.info("something", number=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(data_dir)], env=environment(), capture_output=True, text=True, check=True
    )

    assert "" == done.stdout
    assert "event='something' number=1" in done.stderr
