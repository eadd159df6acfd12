"""The main job on real input: a slice of a real handbook's history, imported and asked about."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragver.client import AsyncClient
from ragver.types import CitationStatus
from tests.support import recorded
from tests.support.replay_checks import check_documents, check_questions
from tests.support.server import RAGVER, Server, environment, running_server

CORPUS = "handbook"
RECORDS = 320
"""Far enough for answers to have been edited away and pages deleted."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not recorded.HISTORY.exists(), reason=f"the recorded history {recorded.HISTORY} is absent"),
]


@pytest.fixture(scope="module")
def history() -> recorded.RecordedHistory:
    return recorded.RecordedHistory(RECORDS)


@pytest.fixture(scope="module")
def imported(
    history: recorded.RecordedHistory, tmp_path_factory: pytest.TempPathFactory, module_data_dir: Path
) -> Iterator[Server]:
    """A server into which the slice was imported by the command line, the first run killed on the way."""
    slice_file = tmp_path_factory.mktemp("history") / "slice.jsonl.gz"
    recorded.write_slice(slice_file, RECORDS)
    command = [*RAGVER, "import", "--replay", str(slice_file), "--corpus", CORPUS]
    settings = environment(data_dir=str(module_data_dir))
    with running_server(module_data_dir) as server:
        with subprocess.Popen(command, env=settings, stderr=subprocess.PIPE) as first:
            assert first.stderr is not None
            first.stderr.readline()  # its progress: it has begun to commit
            first.kill()
        assert first.returncode == -signal.SIGKILL
        finished = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        yield server


async def test_each_record_is_one_epoch(history: recorded.RecordedHistory, imported: Server) -> None:
    """Also after a kill half-way: the second run went on where the first was, and made nothing twice."""
    async with AsyncClient(imported.url) as client:
        corpus = await client.corpus(CORPUS)
        keys = [entry.idempotency_key async for entry in client.each_commit(CORPUS)]
    assert corpus.head == len(history)
    assert len(set(keys)) == len(keys) == len(history)


async def test_documents_at_earlier_epochs_are_those_of_a_replay(
    history: recorded.RecordedHistory, imported: Server
) -> None:
    """At the head, at the start, and in between, to the last character."""
    async with AsyncClient(imported.url) as client:
        await check_documents(client, CORPUS, history, [0, RECORDS // 2, RECORDS - 1])


async def test_answers_are_visible_while_they_lived_and_told_their_fate_after(
    history: recorded.RecordedHistory, imported: Server
) -> None:
    """Every question: its passage is retrievable at its epoch; at the head it is live, superseded or deleted."""
    async with AsyncClient(imported.url) as client:
        outcome = await check_questions(client, CORPUS, history)
    print(f"recall@10 of the hashing embedder: {outcome.recalled} of {outcome.asked}; {dict(outcome.statuses)}")
    assert outcome.wrong == []
    assert set(outcome.statuses) == {CitationStatus.LIVE, CitationStatus.SUPERSEDED, CitationStatus.DELETED}
