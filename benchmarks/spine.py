"""What the consistency costs: each path beside the bare work it cannot do without, in one run.

`python -m benchmarks.spine [--chunks 10000]`; see benchmarks/README.md for what the numbers mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import qdrant_edge as edge
import uvicorn
import uvloop
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import load
from benchmarks.measure import Latency, take_turns
from ragver import wire
from ragver.api.app import create_app
from ragver.bootstrap import Services, open_services
from ragver.collection import collection_of
from ragver.index.edge import EdgeIndex
from ragver.settings import Settings
from tests.support.postgres import open_directory

DIMENSIONS = 384
CLUSTERS = 200
CHUNKS_PER_DOCUMENT = 10
DOCUMENTS_PER_COMMIT = 100
CORPUS = "bench"
CONNECTIONS = 32
LOAD_S = 4.0
LOAD_ROUNDS = 3


def clustered(count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors around cluster centres, as embeddings of real text lie."""
    centres = generator.normal(size=(CLUSTERS, DIMENSIONS))
    points = centres[generator.integers(CLUSTERS, size=count)] + 0.4 * generator.normal(size=(count, DIMENSIONS))
    unit: NDArray[np.float32] = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    return unit


@asynccontextmanager
async def bench_services(directory: Path) -> AsyncIterator[Services]:
    async with open_services(Settings(data_dir=directory), role="benchmark") as services:
        yield services


async def fill(services: Services, vectors: NDArray[np.float32]) -> None:
    """A corpus of documents with ten chunks each, all in the index."""
    embedding = wire.Embedding(provider="external", dimensions=DIMENSIONS)
    await services.catalog.create(wire.CorpusCreate(name=CORPUS, embedding=embedding))
    per_commit = CHUNKS_PER_DOCUMENT * DOCUMENTS_PER_COMMIT
    for start in range(0, len(vectors), per_commit):
        documents = range(start, min(start + per_commit, len(vectors)), CHUNKS_PER_DOCUMENT)
        operations = [_put(number, vectors[number : number + CHUNKS_PER_DOCUMENT]) for number in documents]
        await services.writer.commit(CORPUS, wire.CommitRequest(ops=operations))
    while (corpus := await services.catalog.corpus(CORPUS)).applied_epoch < corpus.head:  # noqa: ASYNC110 - polled
        await asyncio.sleep(0.2)


def _put(number: int, vectors: NDArray[np.float32]) -> wire.Put:
    chunks = [
        wire.ChunkInput(text=f"Passage {number + place}. " + "All of it is filler. " * 30, vector=vector.tolist())
        for place, vector in enumerate(vectors)
    ]
    return wire.Put(op="put", key=f"documents/{number}.md", chunks=chunks)


async def retrieval(services: Services, database_url: str, queries: NDArray[np.float32]) -> dict[str, Latency]:
    """A strong retrieval in process, beside the engine's own search and one SELECT of the same texts."""
    view = await services.views.get(CORPUS)
    assert isinstance(services.index, EdgeIndex)
    shard = services.index._shard(collection_of(view.info))  # its engine changes when a graph has been built
    connection = await asyncpg.connect(database_url)
    statement = "SELECT id, text FROM chunk WHERE corpus_id = $1 AND id = ANY($2::bigint[])"

    async def bare(number: int) -> None:
        query = edge.Query.Nearest(queries[number % len(queries)].tolist())
        found = shard._engine.search(edge.SearchRequest(query, 10, with_payload=False))
        await connection.fetch(statement, view.info.corpus_id, [hit.id for hit in found])

    async def engine_only(number: int) -> None:
        query = edge.Query.Nearest(queries[number % len(queries)].tolist())
        shard._engine.search(edge.SearchRequest(query, 10, with_payload=False))

    async def strong(number: int) -> None:
        request = wire.RetrieveRequest(vector=queries[number % len(queries)].tolist(), k=10)
        await services.retrieval.retrieve(CORPUS, request)

    try:
        return await take_turns({"engine": engine_only, "bare": bare, "strong": strong}, rounds=600, warm_up=100)
    finally:
        await connection.close()


async def deletion(services: Services, database_url: str, documents: int) -> dict[str, Latency]:
    """A delete with its epoch, beside one UPDATE of one row; both end in an fsync."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE bare (id int PRIMARY KEY, n int); INSERT INTO bare VALUES (1, 0)")

    async def bare(number: int) -> None:
        await connection.execute("UPDATE bare SET n = n + 1 WHERE id = $1", 1)

    async def delete(number: int) -> None:
        operation = wire.Delete(op="delete", key=f"documents/{number * CHUNKS_PER_DOCUMENT}.md")
        await services.writer.commit(CORPUS, wire.CommitRequest(ops=[operation]))

    try:
        return await take_turns({"bare": bare, "delete": delete}, rounds=min(400, documents - 100), warm_up=50)
    finally:
        await connection.close()


async def validation(services: Services, database_url: str, query: NDArray[np.float32]) -> dict[str, list[load.Load]]:
    """Validations over HTTP, beside an endpoint that does nothing and one that does a SELECT."""
    found = await services.retrieval.retrieve(CORPUS, wire.RetrieveRequest(vector=query.tolist(), k=10))
    body = json.dumps({"snapshot": found.snapshot, "answer": "It is filler [1]. All of it [2, 3]."}).encode()
    ours, theirs = _free_port(), _free_port()
    app = create_app(lambda: _already_open(services), services.settings.request_bytes_max)
    server = uvicorn.Server(uvicorn.Config(app, port=ours, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    command = [sys.executable, "-m", "benchmarks.baseline", database_url, str(theirs)]
    baseline = await asyncio.create_subprocess_exec(*command)
    targets = {
        "bare": (theirs, "/bare"),
        "select": (theirs, "/select"),
        "select, driver": (theirs, "/select-driver"),
        "validate": (ours, f"/v1/corpora/{CORPUS}/validate"),
    }
    try:
        await asyncio.gather(_listening(ours), _listening(theirs))
        return await _loads(targets, body)
    finally:
        server.should_exit = True
        await serving
        baseline.terminate()
        await baseline.wait()


async def _loads(targets: dict[str, tuple[int, str]], body: bytes) -> dict[str, list[load.Load]]:
    """The load comes from a process of its own: the two cores are for it and for the server."""
    results: dict[str, list[load.Load]] = {name: [] for name in targets}
    for _ in range(LOAD_ROUNDS):
        for name, (port, path) in targets.items():
            results[name].append(await _apart("closed", port, path, body, 0))
    # Half of what validation carries, so that waiting in line is not what is measured.
    rate = max(result.requests_per_s for result in results["validate"]) / 2
    for name, (port, path) in targets.items():
        if not name.startswith("select"):
            results[name].append(await _apart("open", port, path, body, rate))
    return results


async def _apart(kind: str, port: int, path: str, body: bytes, rate: float) -> load.Load:
    command = [sys.executable, "-m", "benchmarks.spine", "--load", kind, str(port), path, str(rate)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(body)
    return load.Load(**json.loads(output))


async def _generate(kind: str, port: int, path: str, rate: float) -> None:
    request = load.prepared("127.0.0.1", port, path, sys.stdin.buffer.read())
    if kind == "closed":
        result = await load.closed_loop("127.0.0.1", port, request, CONNECTIONS, LOAD_S)
    else:
        result = await load.open_loop("127.0.0.1", port, request, CONNECTIONS, rate, LOAD_S)
    fields = ("requests_per_s", "p50_ms", "p99_ms", "failures")
    print(json.dumps({field: getattr(result, field) for field in fields}))


@asynccontextmanager
async def _already_open(services: Services) -> AsyncIterator[Services]:
    yield services


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _listening(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise TimeoutError(f"nothing listens on port {port}")


async def main(directory: Path, chunks: int) -> None:
    generator = np.random.default_rng(14)
    vectors = clustered(chunks + 500, generator)
    async with bench_services(directory) as services:
        await fill(services, vectors[:chunks])
        await show(services, services.database.url, vectors, chunks)


async def show(services: Services, url: str, vectors: NDArray[np.float32], chunks: int) -> None:
    console = Console()
    read = await retrieval(services, url, vectors[chunks:])
    _table(
        console,
        f"Strong retrieval, {chunks} chunks (in process, k = 10)",
        {name: [one.median_ms, one.p99_ms] for name, one in read.items()},
        f"strong / bare = {read['strong'].median_ms / read['bare'].median_ms:.2f} (aim ≤ 1.3)",
    )
    loads = await validation(services, url, vectors[chunks])
    best = {name: max(one.requests_per_s for one in results[:LOAD_ROUNDS]) for name, results in loads.items()}
    _table(
        console,
        f"Validation over HTTP, {CONNECTIONS} connections (best of {LOAD_ROUNDS}: requests/s)",
        {name: [rate] for name, rate in best.items()},
        f"validate / bare = {best['validate'] / best['bare']:.2f} (aim ≥ 0.7), "
        f"validate / select = {best['validate'] / best['select']:.2f} (aim ≥ 4)",
    )
    opened = {name: results[-1] for name, results in loads.items() if not name.startswith("select")}
    _table(
        console,
        "The same, open loop at half of what validation carries (p50 ms, p99 ms, failures)",
        {name: [one.p50_ms, one.p99_ms, one.failures] for name, one in opened.items()},
        "",
    )
    written = await deletion(services, url, chunks // CHUNKS_PER_DOCUMENT)
    _table(
        console,
        "Delete of a document of ten chunks (in process, fsync on)",
        {name: [one.median_ms, one.p99_ms] for name, one in written.items()},
        f"delete / bare = {written['delete'].median_ms / written['bare'].median_ms:.2f} (aim ≤ 2)",
    )


def _table(console: Console, title: str, rows: dict[str, list[Any]], ratio: str) -> None:
    table = Table(title=title, title_justify="left", caption=ratio, caption_justify="left", show_header=False)
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.2f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--load", nargs=4, metavar=("KIND", "PORT", "PATH", "RATE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        kind, port, path, rate = arguments.load
        asyncio.run(_generate(kind, int(port), path, float(rate)))
    else:
        # The loop that `ragver serve` runs on.
        with open_directory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(directory / "data", arguments.chunks))
