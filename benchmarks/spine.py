"""What the consistency costs: each path beside the bare work it cannot do without, in one run.

`python -m benchmarks.spine [--chunks 10000]`; see benchmarks/README.md for what the numbers mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import uvloop
from numpy.typing import NDArray

from benchmarks import filling, load
from benchmarks.contestants import Contestants
from benchmarks.filling import CHUNKS_PER_DOCUMENT
from benchmarks.measure import Latency, take_turns
from benchmarks.report import keep, show
from benchmarks.serving import free_port, listening, served
from benchmarks.vectors import clustered
from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.settings import Settings
from tests.support.postgres import open_directory

CORPUS = "bench"
CONNECTIONS = 32
LOAD_S = 4.0
LOAD_ROUNDS = 3


async def fill(services: Services, vectors: NDArray[np.float32]) -> None:
    """A corpus of documents with ten chunks each, all in the index."""
    await filling.create(services, CORPUS)
    await filling.put_all(services, CORPUS, vectors)
    await filling.indexed(services, [CORPUS])


async def retrieval(services: Services, queries: NDArray[np.float32]) -> dict[str, Latency]:
    """A strong retrieval in process, beside the engine's own search and one SELECT of the same texts."""
    async with Contestants.of(services, CORPUS, queries) as corpus:
        contestants = {"engine": corpus.engine, "bare": corpus.bare, "strong": corpus.strong}
        return await take_turns(contestants, rounds=600, warm_up=100)


async def deletion(services: Services, database_url: str, documents: int) -> dict[str, Latency]:
    """A delete with its epoch, beside one UPDATE of one row; both end in an fsync."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE bare (id int PRIMARY KEY, n int); INSERT INTO bare VALUES (1, 0)")

    async def bare(number: int) -> None:
        await connection.execute("UPDATE bare SET n = n + 1 WHERE id = $1", 1)

    async def delete(number: int) -> None:
        operation = wire.Delete(op="delete", key=filling.key_of(number * CHUNKS_PER_DOCUMENT))
        await services.writer.commit(CORPUS, wire.CommitRequest(ops=[operation]))

    try:
        return await take_turns({"bare": bare, "delete": delete}, rounds=min(400, documents - 100), warm_up=50)
    finally:
        await connection.close()


async def validation(services: Services, database_url: str, query: NDArray[np.float32]) -> dict[str, list[load.Load]]:
    """Validations over HTTP, beside an endpoint that does nothing and one that does a SELECT."""
    found = await services.retrieval.retrieve(CORPUS, wire.RetrieveRequest(vector=query.tolist(), k=10))
    body = json.dumps({"snapshot": found.snapshot, "answer": "It is filler [1]. All of it [2, 3]."}).encode()
    theirs = free_port()
    command = [sys.executable, "-m", "benchmarks.baseline", database_url, str(theirs)]
    baseline = await asyncio.create_subprocess_exec(*command)
    try:
        async with served(services) as ours:
            await listening(theirs)
            targets = {
                "bare": (theirs, "/bare"),
                "select": (theirs, "/select"),
                "select, driver": (theirs, "/select-driver"),
                "validate": (ours, f"/v1/corpora/{CORPUS}/validate"),
            }
            return await _loads(targets, body)
    finally:
        baseline.terminate()
        await baseline.wait()


async def _loads(targets: dict[str, tuple[int, str]], body: bytes) -> dict[str, list[load.Load]]:
    results: dict[str, list[load.Load]] = {name: [] for name in targets}
    for _ in range(LOAD_ROUNDS):
        for name, (port, path) in targets.items():
            loaded = await load.apart("closed", port, path, [body], connections=CONNECTIONS, seconds=LOAD_S)
            results[name].append(loaded)
    # Half of what validation carries, so that waiting in line is not what is measured.
    rate = max(result.requests_per_s for result in results["validate"]) / 2
    for name, (port, path) in targets.items():
        if not name.startswith("select"):
            loaded = await load.apart(
                "open", port, path, [body], connections=CONNECTIONS, seconds=LOAD_S, rate_per_s=rate
            )
            results[name].append(loaded)
    return results


async def main(directory: Path, chunks: int) -> None:
    vectors = clustered(chunks + 700, seed=1)
    async with open_services(Settings(data_dir=directory), role="benchmark") as services:
        await fill(services, vectors[:chunks])
        figures = await measure(services, services.database.url, vectors, chunks)
    print(f"written to {keep('spine', figures)}")


async def measure(services: Services, url: str, vectors: NDArray[np.float32], chunks: int) -> dict[str, Any]:
    read = await retrieval(services, vectors[chunks:])
    show(
        f"Strong retrieval, {chunks} chunks (in process, k = 10)",
        ["p50 ms", "p95 ms", "p99 ms"],
        {name: list(asdict(one).values()) for name, one in read.items()},
        f"strong / bare = {read['strong'].p50_ms / read['bare'].p50_ms:.2f} (aim ≤ 1.3)",
    )
    loads = await validation(services, url, vectors[chunks])
    best = {name: max(one.requests_per_s for one in results[:LOAD_ROUNDS]) for name, results in loads.items()}
    show(
        f"Validation over HTTP, {CONNECTIONS} connections (best of {LOAD_ROUNDS})",
        ["requests/s"],
        {name: [rate] for name, rate in best.items()},
        f"validate / bare = {best['validate'] / best['bare']:.2f} (aim ≥ 0.7), "
        f"validate / select = {best['validate'] / best['select']:.2f} (aim ≥ 4)",
    )
    opened = {name: results[-1] for name, results in loads.items() if not name.startswith("select")}
    show(
        "The same, open loop at half of what validation carries",
        ["p50 ms", "p99 ms", "failures"],
        {name: [one.p50_ms, one.p99_ms, one.failures] for name, one in opened.items()},
    )
    written = await deletion(services, url, chunks // CHUNKS_PER_DOCUMENT)
    show(
        "Delete of a document of ten chunks (in process, fsync on)",
        ["p50 ms", "p95 ms", "p99 ms"],
        {name: list(asdict(one).values()) for name, one in written.items()},
        f"delete / bare = {written['delete'].p50_ms / written['bare'].p50_ms:.2f} (aim ≤ 2)",
    )
    return {
        "chunks": chunks,
        "retrieval": {name: asdict(one) for name, one in read.items()},
        "validation": {name: [asdict(one) for one in results] for name, results in loads.items()},
        "deletion": {name: asdict(one) for name, one in written.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000)
    arguments = parser.parse_args()
    # The loop that `ragver serve` runs on.
    with open_directory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(directory / "data", arguments.chunks))
