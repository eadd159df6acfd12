"""What a search costs while the embedded index builds its graph: before, during and after, beside the bare engine.

The graph is built by a child process at the lowest priority; points are written meanwhile, as under an indexer.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import qdrant_edge
from numpy.typing import NDArray

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


class Bench:
    def __init__(self, index: EdgeIndex, collection: Collection) -> None:
        self._index = index
        self._collection = collection
        self._queries = clustered(500, 2)
        self._next_id = 1
        self._taken_ms: dict[str, list[float]] = {"bare": [], "port": []}

    @property
    def building(self) -> bool:
        return self._index._shard(self._collection).building

    async def write(self, rows: NDArray[np.float32]) -> None:
        payload = Payload(DocumentId(1), Epoch(1), None, Epoch(1), ["*"], {})
        points = [Point(ChunkId(self._next_id + row), vector, payload) for row, vector in enumerate(rows)]
        self._next_id += len(points)
        await self._index.upsert(self._collection, points)

    async def search_both(self, number: int) -> None:
        """The engine alone, then the port, which excludes the dead and the forbidden."""
        query = self._queries[number % len(self._queries)]
        engine = self._index._shard(self._collection)._engine
        started_s = time.perf_counter()
        nearest = qdrant_edge.Query.Nearest(query.tolist())
        engine.search(qdrant_edge.SearchRequest(nearest, 10, with_payload=False))
        between_s = time.perf_counter()
        await self._index.search(self._collection, Search(query, 10, Epoch(9), ["user:ada"], may_hold_newer=False))
        self._taken_ms["bare"].append((between_s - started_s) * 1000)
        self._taken_ms["port"].append((time.perf_counter() - between_s) * 1000)

    async def work(self, searches: int) -> None:
        """Searches, and a write of ten points now and then."""
        for number in range(searches):
            await asyncio.sleep(PAUSE_S)
            await self.search_both(number)
            if number % WRITE_EVERY_SEARCHES == 0:
                await self.write(self._queries[:10])

    def report(self, phase: str) -> float:
        """Print what the searches since the last report took; the port's p99."""
        p99 = 0.0
        for name, taken in self._taken_ms.items():
            p50, p99, most = np.percentile(taken, [50, 99, 100])
            print(f"{phase:7} {name}  {len(taken):6} ×  p50 {p50:6.2f}  p99 {p99:6.2f}  max {most:7.2f} ms", flush=True)
            taken.clear()
        return float(p99)


async def measure(directory: Path, count: int) -> None:
    index, collection = EdgeIndex(directory), Collection("scale", DIMENSIONS, Distance.COSINE)
    await index.ensure(collection)
    bench = Bench(index, collection)
    edge_shard.BUILD_POINTS_MIN = 2 * count + SEARCHES  # not before the quiet has been measured
    for start in range(0, count, BATCH_POINTS):
        await bench.write(clustered(min(BATCH_POINTS, count - start), 3 + start))
    await bench.work(SEARCHES)
    quiet = bench.report("before")
    edge_shard.BUILD_POINTS_MIN = count
    await bench.write(clustered(1, 1))
    started_s = time.perf_counter()
    while bench.building:
        await bench.work(WRITE_EVERY_SEARCHES)
    print(f"the build took {time.perf_counter() - started_s:.1f} s")
    during = bench.report("during")
    await bench.work(SEARCHES)
    bench.report("after")
    print(f"p99 during / before: {during / quiet:.2f}")
    await index.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), arguments.points))


if __name__ == "__main__":
    main()
