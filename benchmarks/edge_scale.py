"""What a search costs while the embedded index builds its graph: before, during and after, beside the bare engine.

Then the same for a rebuild: a shard has a graph, and a tenth has come to it since (`grown`). The graph is built by a
child process at the lowest priority; points are written meanwhile, as under an indexer. At the end: recall@10 against
numpy.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge
from numpy.typing import NDArray

from benchmarks.measure import latency
from benchmarks.report import keep, show
from benchmarks.vectors import DIMENSIONS, clustered
from ragver.index import edge_shard
from ragver.index.edge import EdgeIndex
from ragver.index.port import Collection, Payload, Point, Search
from ragver.types import ChunkId, Distance, DocumentId, Epoch

BATCH_POINTS = 1_000
SEARCHES = 1_000
WRITE_EVERY_SEARCHES = 20
PAUSE_S = 0.005
"""Before each search: under searches without a pause, the child would get one processor and they the other."""
K = 10
RECALL_QUERIES = 200


class Bench:
    """A collection that is written and searched; point `n` has the vector in row `n - 1`."""

    def __init__(self, index: EdgeIndex, collection: Collection) -> None:
        self._index = index
        self._collection = collection
        self._queries = clustered(500, seed=2)
        self._written: list[NDArray[np.float32]] = []
        self._next_id = 1
        self._taken_ms: dict[str, list[float]] = {"bare": [], "port": []}
        self.figures: dict[str, dict[str, float]] = {}
        """Percentiles of each phase."""

    @property
    def building(self) -> bool:
        return self._index._shard(self._collection).building

    async def write(self, rows: NDArray[np.float32]) -> None:
        payload = Payload(DocumentId(1), Epoch(1), None, Epoch(1), ["*"], {})
        points = [Point(ChunkId(self._next_id + row), vector, payload) for row, vector in enumerate(rows)]
        self._next_id += len(points)
        self._written.append(rows)
        await self._index.upsert(self._collection, points)

    async def write_many(self, count: int, seed: int) -> None:
        for start in range(0, count, BATCH_POINTS):
            await self.write(clustered(min(BATCH_POINTS, count - start), seed + start))

    async def search_both(self, number: int) -> None:
        """The engine alone, then the port, which excludes the dead and the forbidden."""
        query = self._queries[number % len(self._queries)]
        engine = self._index._shard(self._collection)._engine
        started_s = time.perf_counter()
        nearest = qdrant_edge.Query.Nearest(query.tolist())
        engine.search(qdrant_edge.SearchRequest(nearest, K, with_payload=False))
        between_s = time.perf_counter()
        await self._index.search(self._collection, _search(query))
        self._taken_ms["bare"].append((between_s - started_s) * 1000)
        self._taken_ms["port"].append((time.perf_counter() - between_s) * 1000)

    async def work(self, searches: int) -> None:
        """Searches, and a write of ten points now and then."""
        for number in range(searches):
            await asyncio.sleep(PAUSE_S)
            await self.search_both(number)
            if number % WRITE_EVERY_SEARCHES == 0:
                await self.write(clustered(10, seed=self._next_id))

    async def quiet(self, phase: str) -> float:
        """The port's p99 while nothing is built."""
        await self.work(SEARCHES)
        return self._phase(phase)

    async def during_build(self, phase: str) -> float:
        """The port's p99 while a build that the next write brings about goes on."""
        edge_shard.BUILD_POINTS_MIN = 1
        started_s = time.perf_counter()
        await self.write(clustered(1, seed=1))
        edge_shard.BUILD_POINTS_MIN = sys.maxsize
        while self.building:
            await self.work(WRITE_EVERY_SEARCHES)
        self.figures[phase] = {"seconds": time.perf_counter() - started_s}
        return self._phase(phase)

    def _phase(self, phase: str) -> float:
        known = self.figures.setdefault(phase, {})
        for name, taken in self._taken_ms.items():
            one = latency(taken)
            known |= {f"{name} p50": one.p50_ms, f"{name} p99": one.p99_ms, f"{name} max": max(taken)}
            taken.clear()
        return known["port p99"]

    async def recall(self) -> float:
        """The share of the ten nearest, by numpy, that the port finds."""
        vectors, found = np.concatenate(self._written), 0
        for query in self._queries[:RECALL_QUERIES]:
            nearest = set((np.argpartition(-(vectors @ query), K)[:K] + 1).tolist())
            matches = await self._index.search(self._collection, _search(query))
            found += len(nearest & {match.chunk_id for match in matches})
        return found / (K * RECALL_QUERIES)


def _search(query: NDArray[np.float32]) -> Search:
    return Search(query, K, Epoch(9), ["user:ada"], may_hold_newer=False)


async def measure(directory: Path, count: int) -> dict[str, Any]:
    index, collection = EdgeIndex(directory), Collection("scale", DIMENSIONS, Distance.COSINE)
    edge_shard.BUILD_POINTS_MIN = sys.maxsize
    await index.ensure(collection)
    bench = Bench(index, collection)
    await bench.write_many(count, seed=3)
    before = await bench.quiet("flat")
    build = await bench.during_build("build")
    await bench.quiet("graph")
    await bench.write_many(count // edge_shard.BUILD_SHARE, seed=3 + count)
    grown = await bench.quiet("grown")
    rebuild = await bench.during_build("rebuild")
    await bench.quiet("rebuilt")
    recall = await bench.recall()
    await index.close()
    return {
        "points": count,
        "recall": recall,
        "build / before": build / before,
        "rebuild / before": rebuild / grown,
        "phases": bench.figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    points = parser.parse_args().points
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(measure(Path(directory), points))
    columns = [f"{name} {which}" for name in ("bare", "port") for which in ("p50", "p99", "max")]
    show(
        f"A search (k = {K}) among {points} points and while their graph is built, in ms",
        [*columns, "build s"],
        {
            phase: [*(known[column] for column in columns), known.get("seconds", "")]
            for phase, known in figures["phases"].items()
        },
        f"port p99, build / before: {figures['build / before']:.2f}; "
        f"rebuild / before: {figures['rebuild / before']:.2f} (aim ≤ 2). "
        f"recall@{K} at the end: {figures['recall']:.3f}",
    )
    print(f"written to {keep('edge_scale', figures)}")


if __name__ == "__main__":
    main()
