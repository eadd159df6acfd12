"""The recorded history goes to another embedding while it is replayed and read.

`python -m benchmarks.generations [--records N]`: reads and commits before, while the generation is built, and after the
cut-over; chunks a second; how long the cut-over and the rollback held commits back. All in one process, fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import Latency, latency
from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.errors import GenerationNotReady
from ragver.settings import Settings
from tests.support.recorded import RecordedHistory

CORPUS = "handbook"
SERVING = wire.Embedding(provider="hashing", dimensions=768)
WANTED = wire.Embedding(provider="hashing", dimensions=512)
QUIET_S = 15.0
LOOK_S = 0.2
COMMIT_EVERY_S = 0.05


@dataclass(slots=True)
class Phase:
    """What was done while something else went on."""

    name: str
    reads_ms: list[float] = field(default_factory=list)
    commits_ms: list[float] = field(default_factory=list)


def operations(record: dict[str, Any]) -> list[wire.Operation]:
    """A record of the history as the operations of a commit."""
    made: list[wire.Operation] = []
    for one in record["ops"]:
        if one["op"] == "delete":
            made.append(wire.Delete(op="delete", key=one["path"]))
            continue
        if one["op"] == "rename":
            made.append(wire.Rename(op="rename", key=one["from"], new_key=one["path"]))
        made.append(wire.Put(op="put", key=one["path"], text=one["text"]))
    return made


class Traffic:
    """One reader without a pause, and commits of the history at a steady pace."""

    def __init__(self, services: Services, questions: list[str], records: Iterator[dict[str, Any]]) -> None:
        self._services = services
        self._questions = itertools.cycle(questions)
        self._records = records

    async def commit(self) -> None:
        await self._services.writer.commit(CORPUS, wire.CommitRequest(ops=operations(next(self._records))))

    @asynccontextmanager
    async def during(self, name: str) -> AsyncIterator[Phase]:
        phase = Phase(name)
        tasks = [asyncio.create_task(self._read(phase)), asyncio.create_task(self._write(phase))]
        try:
            yield phase
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, phase: Phase) -> None:
        while True:
            started = time.perf_counter()
            await self._services.retrieval.retrieve(CORPUS, wire.RetrieveRequest(query=next(self._questions), k=10))
            phase.reads_ms.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0)

    async def _write(self, phase: Phase) -> None:
        while True:
            started = time.perf_counter()
            await self.commit()
            phase.commits_ms.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(COMMIT_EVERY_S)


async def built(services: Services, generation: str) -> wire.Generation:
    while True:
        told = await services.generations.get(CORPUS, generation)
        if told.verified_epoch is not None:
            return told
        await asyncio.sleep(LOOK_S)


async def cut_over(services: Services, generation: str) -> wire.CutOver:
    while True:
        try:
            return await services.generations.cut_over(CORPUS, generation)
        except GenerationNotReady:
            await asyncio.sleep(LOOK_S)


async def measure(services: Services, records: int) -> None:
    history = RecordedHistory()
    questions = [asked.question for asked in history.questions()]
    traffic = Traffic(services, questions, iter(history.records))
    await services.catalog.create(wire.CorpusCreate(name=CORPUS, embedding=SERVING))
    for _ in range(records):
        await traffic.commit()
    while (now := await services.catalog.corpus(CORPUS)).applied_epoch < now.head:  # noqa: ASYNC110 - of another task
        await asyncio.sleep(LOOK_S)
    async with traffic.during("before") as before:
        await asyncio.sleep(QUIET_S)
    async with traffic.during("while it is built") as building:
        started = time.perf_counter()
        generation, _ = await services.generations.begin(CORPUS, wire.GenerationCreate(embedding=WANTED))
        told = await built(services, generation.id)
        seconds = time.perf_counter() - started
    async with traffic.during("across the cut-over") as across:
        await asyncio.sleep(1)
        done = await cut_over(services, generation.id)
        await asyncio.sleep(QUIET_S)
        back = await cut_over(services, done.former)
    await asyncio.sleep(LOOK_S)
    resting = await cut_over(services, generation.id)
    print(f"{told.chunks:,} chunks, {SERVING.dimensions} → {WANTED.dimensions} dimensions: {seconds:.1f} s, ", end="")
    print(f"{told.chunks / seconds:,.0f} chunks/s, the check included")
    held = f"{done.locked_ms:.1f} ms by the cut-over, {back.locked_ms:.1f} ms by the rollback"
    print(f"commits held back: {held}, {resting.locked_ms:.1f} ms by a cut-over at rest")
    quiet = latency(before.reads_ms), latency(before.commits_ms)
    for phase in (before, building, across):
        print(f"{phase.name:20}", _row("reads", phase.reads_ms, quiet[0]), _row("commits", phase.commits_ms, quiet[1]))


def _row(what: str, times_ms: list[float], quiet: Latency) -> str:
    found = latency(times_ms)
    ratios = f"({found.p50_ms / quiet.p50_ms:.1f} and {found.p99_ms / quiet.p99_ms:.1f} ×)"
    return f"{len(times_ms):6,} {what}: p50 {found.p50_ms:.1f}, p99 {found.p99_ms:.1f} ms {ratios}"


async def main(records: int) -> None:
    with TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory) / ".ragver")
        async with open_services(settings, role="benchmark") as services:
            await measure(services, records)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_500, help="commits of the history that come before it all")
    asyncio.run(main(parser.parse_args().records))
