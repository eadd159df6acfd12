"""G7 with gates: when a fenced delete returns, no guarded stream anywhere releases what was validated before it.

Real processes: a server, and readers that are quick, slow, or stopped by SIGSTOP in the worst places. All times are
those of CLOCK_MONOTONIC, which the processes of a machine share.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from ragver.client import Client
from tests.support.child import Child, child
from tests.support.gated_reader import PLACES
from tests.support.server import running_server

pytestmark = pytest.mark.guarantee(7)

TTL_MS = 1_000
READER = "from tests.support.gated_reader import main; main()"
TEXT = "Everyone has 30 days of leave a year."


@dataclass(frozen=True, slots=True)
class Reader:
    place: str
    """Where it stops, or `quick` or `slow`."""
    face: str = "asynchronous"
    lease: str = "honoured"

    @property
    def stops(self) -> bool:
        return self.place in PLACES


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to each reader, and when the delete returned."""

    returned_at: float
    lines: dict[Reader, list[str]]

    def shown_at(self, reader: Reader) -> list[float]:
        return [float(line.split()[1]) for line in self.lines[reader] if line.startswith("shown")]


@pytest.fixture(scope="module")
def url(module_data_dir: Path) -> Iterator[str]:
    with running_server(module_data_dir) as server:
        yield server.url


def story(url: str, readers: Sequence[Reader], *, fence: bool = True, ttl_ms: int = TTL_MS) -> Story:
    """All readers read; those that stop have stopped; the page is deleted; they go on, and read to their end."""
    corpus = f"policies-{uuid4()}"
    with Client(url) as client, ExitStack() as stack:
        client.create_corpus(corpus, verdict_ttl_ms=ttl_ms)
        client.put_document(corpus, "leave.md", TEXT)
        snapshot = client.retrieve(corpus, "How many days of leave?", k=1).snapshot
        children = {
            reader: stack.enter_context(child(READER, url, corpus, snapshot, reader.face, reader.place, reader.lease))
            for reader in readers
        }
        lines = {reader: _until_it_stops(children[reader], reader) for reader in readers}
        client.delete_document(corpus, "leave.md", fence=fence)
        returned_at = time.clock_gettime(time.CLOCK_MONOTONIC)
        for running in children.values():
            os.kill(running.pid, signal.SIGCONT)
        for reader, running in children.items():
            lines[reader] += running.rest()
    return Story(returned_at, lines)


def _until_it_stops(running: Child, reader: Reader) -> list[str]:
    lines = [running.read()]
    while reader.stops and lines[-1] != "stopped":
        lines.append(running.read())
    if reader.stops:
        _, status = os.waitpid(running.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
    return lines


READERS = [
    *(Reader(place) for place in PLACES),
    Reader(PLACES[2], face="synchronous"),
    Reader("quick"),
    Reader("slow"),
]


def test_g07_no_gate_releases_after_a_fenced_delete_has_returned(url: str) -> None:
    """Wherever its process was frozen meanwhile, and however slow its reader is; all are told to take it back."""
    told = story(url, READERS)
    for reader in READERS:
        assert told.lines[reader][-1] == "Retraction", reader
        assert told.shown_at(reader), reader
        assert max(told.shown_at(reader)) < told.returned_at, reader


def test_g07_without_the_look_at_the_lease_frozen_gates_release_after_the_delete(url: str) -> None:
    """The anomaly: the same places, and a gate that acts on its verdict however old it is."""
    blind = [Reader(place, lease="ignored") for place in PLACES[1:]]
    blind.append(Reader(PLACES[2], "synchronous", "ignored"))
    told = story(url, blind)
    for reader in blind:
        assert max(told.shown_at(reader)) > told.returned_at, reader


def test_g07_without_the_fence_a_gate_may_release_after_the_delete(url: str) -> None:
    """The anomaly: a delete that returns when it is committed, within the lease of a verdict from before."""
    frozen = Reader(PLACES[2])
    told = story(url, [frozen], fence=False, ttl_ms=60_000)
    assert max(told.shown_at(frozen)) > told.returned_at
