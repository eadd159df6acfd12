"""Strong retrieval beside the bare engine: over sizes, over tails, over shares of dead chunks.

`python -m benchmarks.retrieval [--sizes 10000 100000 300000] [--data-dir DIR]`; benchmarks/README.md tells what the
contestants are. With `--data-dir` the stores are kept, and a later run with the same sizes only
measures; after a run that was interrupted, remove it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import filling, load
from benchmarks.contestants import Contestants, K
from benchmarks.measure import Contestant, Latency, take_turns
from benchmarks.report import console, keep, show
from benchmarks.serving import served
from benchmarks.vectors import clustered
from ragver.bootstrap import Services, open_services
from ragver.errors import CorpusNotFound
from ragver.settings import Settings
from tests.support.postgres import open_directory

SIZES = (10_000, 100_000, 300_000)
VARIANTS_OF = 100_000
TAILS = (0, 100, 1_000, 10_000)
DEAD_PERCENT = (0, 10, 50)
ROUNDS = 500
WARM_UP = 50
RECALL_QUERIES = 200
QUERIES_SEED = 2
TAIL_SEED = 3
HTTP_RATE_PER_S = 100.0
HTTP_S = 8.0
HTTP_ROUNDS = 2
HTTP_CONNECTIONS = 16


# ── what is measured on ─────────────────────────────────────────────────────────────────────────────────────


def sized(size: int) -> str:
    return f"size-{size}"


def tailed(size: int, tail: int) -> str:
    return f"size-{size}-tail-{tail}" if tail else sized(size)


def thinned(size: int, percent: int) -> str:
    return f"size-{size}-dead-{percent}" if percent else sized(size)


class Stock:
    """Makes the corpora that are not there yet."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def _is_there(self, corpus: str) -> bool:
        try:
            await self._services.catalog.corpus(corpus)
        except CorpusNotFound:
            return False
        return True

    async def prepare(self, sizes: Sequence[int], variants_of: int) -> None:
        """Everything in the index that belongs there, with its graph; then the copies, which go beyond it."""
        indexed = [name for size in sizes if (name := await self._sized(size))]
        indexed += [name for percent in DEAD_PERCENT[1:] if (name := await self._thinned(variants_of, percent))]
        if indexed:
            await self._timed("graphs of all", filling.graphs_built(self._services, indexed))
        for tail in TAILS[1:]:
            await self._tailed(variants_of, tail)

    async def _sized(self, size: int) -> str | None:
        name = sized(size)
        if await self._is_there(name):
            return None
        await filling.create(self._services, name)
        await self._timed(f"ledger of {name}", filling.put_all(self._services, name, clustered(size, seed=1)))
        await self._timed(f"index of {name}", filling.indexed(self._services, [name]))
        return name

    async def _thinned(self, size: int, percent: int) -> str | None:
        """As many chunks in the index as without the dead ones among them; deaths spread over the whole history."""
        name = thinned(size, percent)
        if await self._is_there(name):
            return None
        await filling.create(self._services, name)
        await self._timed(f"ledger of {name}", filling.put_all(self._services, name, clustered(size, seed=1)))
        documents = np.random.default_rng(percent).permutation(size // filling.CHUNKS_PER_DOCUMENT)
        dying = documents[: len(documents) * percent // 100] * filling.CHUNKS_PER_DOCUMENT
        await filling.delete_all(self._services, name, dying.tolist())
        await self._timed(f"index of {name}", filling.indexed(self._services, [name]))
        return name

    async def _tailed(self, size: int, tail: int) -> None:
        """Nine of ten changes are births, the tenth is the death of a chunk in the index."""
        name = tailed(size, tail)
        if await self._is_there(name):
            return
        await self._timed(f"copy for {name}", filling.copied(self._services, sized(size), name))
        dying = tail // 10
        await filling.put_all(self._services, name, clustered(tail - dying, TAIL_SEED), first=size)
        await filling.delete_all(self._services, name, range(0, dying * 7, 7 * filling.CHUNKS_PER_DOCUMENT))

    @staticmethod
    async def _timed(what: str, work: Any) -> None:
        started_s = time.perf_counter()
        await work
        console.print(f"{what}: {time.perf_counter() - started_s:.1f} s")


async def recall(services: Services, corpus: str, expected_tail: int = 0) -> float:
    """The share of the ten nearest living chunks, by numpy over the ledger's vectors, that a strong read finds.

    Raises if a read shows what is not alive, scores it wrongly, or has another tail than is meant.
    """
    ids, vectors = await filling.living(services, corpus)
    queries = clustered(RECALL_QUERIES, seed=QUERIES_SEED)
    row_of = {int(chunk_id): row for row, chunk_id in enumerate(ids)}
    found = 0
    async with Contestants.of(services, corpus, queries) as contestants:
        for number, query in enumerate(queries):
            answer = await contestants.strong(number)
            assert (K, expected_tail) == (len(answer.hits), answer.tail), (len(answer.hits), answer.tail)
            scores = vectors @ query
            rows = [row_of[int(hit.chunk_id)] for hit in answer.hits]  # what is dead has none
            assert np.allclose(scores[rows], [hit.score for hit in answer.hits], atol=1e-4)
            found += len({*rows} & {*np.argpartition(-scores, K)[:K].tolist()})
    return found / (K * len(queries))


# ── measuring ───────────────────────────────────────────────────────────────────────────────────────────────


def _row(one: Latency) -> list[float]:
    return [one.p50_ms, one.p95_ms, one.p99_ms]


PERCENTILES = ["p50 ms", "p95 ms", "p99 ms"]
Figures = dict[str, Any]


async def over_sizes(services: Services, sizes: Sequence[int], rounds: int) -> Figures:
    """At each size: the engine, bare, strong."""
    figures: Figures = {}
    queries = clustered(rounds + WARM_UP, QUERIES_SEED)
    for size in sizes:
        found = await recall(services, sized(size))
        async with Contestants.of(services, sized(size), queries) as corpus:
            taken = await take_turns(
                {
                    "engine": corpus.engine,
                    "bare": corpus.bare,
                    "strong, cold": corpus.strong_cold,
                    "strong": corpus.strong,
                },
                rounds,
                WARM_UP,
            )
        bare = taken["bare"].p50_ms
        show(
            f"{size} chunks, all applied (in process, k = {K})",
            [*PERCENTILES, "p50 / bare", "p50 - bare"],
            {name: [*_row(one), one.p50_ms / bare, one.p50_ms - bare] for name, one in taken.items()},
            f"recall@{K} of strong: {found:.3f}",
        )
        figures[str(size)] = {"recall": found, **_figures(taken)}
    return figures


async def over_tails(services: Services, size: int, rounds: int) -> Figures:
    """The same corpus with tails of different lengths, in turns."""
    found = {tail: await recall(services, tailed(size, tail), tail) for tail in TAILS}
    async with AsyncExitStack() as stack:
        queries = clustered(rounds + WARM_UP, QUERIES_SEED)
        corpora = {
            tail: await stack.enter_async_context(Contestants.of(services, tailed(size, tail), queries))
            for tail in TAILS
        }
        first = {tail: await _first_read_ms(services, corpora[tail]) for tail in TAILS}
        contestants: dict[str, Contestant] = {"bare": corpora[0].bare}
        contestants |= {str(tail): corpus.strong_cold for tail, corpus in corpora.items()}
        taken = await take_turns(contestants, rounds, WARM_UP)
    nothing = taken["0"].p50_ms
    show(
        f"A tail of n changes beside {size} chunks (strong, cold but for the tail)",
        [*PERCENTILES, "p50 - tail 0", "first read ms", f"recall@{K}"],
        {
            str(tail): [*_row(taken[str(tail)]), taken[str(tail)].p50_ms - nothing, first[tail], found[tail]]
            for tail in TAILS
        },
        f"bare, no tail: {taken['bare'].p50_ms:.2f} ms. Aim: + 3 ms at most at 10,000",
    )
    return {**_figures(taken), "first_read_ms": first, "recall": found}


async def _first_read_ms(services: Services, contestants: Contestants) -> float:
    """A read by a process that knows nothing of the tail yet."""
    services.retrieval._tails.pop(contestants.view, None)
    started_s = time.perf_counter()
    await contestants.strong_cold(0)
    return (time.perf_counter() - started_s) * 1000


async def over_dead(services: Services, size: int, rounds: int) -> Figures:
    """As many points, of which more or fewer are dead and wait for the horizon, in turns."""
    found = {percent: await recall(services, thinned(size, percent)) for percent in DEAD_PERCENT}
    contestants: dict[str, Contestant] = {}
    async with AsyncExitStack() as stack:
        for percent in DEAD_PERCENT:
            queries = clustered(rounds + WARM_UP, QUERIES_SEED)
            corpus = await stack.enter_async_context(Contestants.of(services, thinned(size, percent), queries))
            contestants |= {f"{percent} % bare": corpus.bare, f"{percent} % strong": corpus.strong_cold}
        taken = await take_turns(contestants, rounds, WARM_UP)
    nothing = taken["0 % strong"].p50_ms
    show(
        f"Dead chunks among {size} points that wait for the horizon (strong, cold)",
        [*PERCENTILES, "p50 - 0 % dead", f"recall@{K}"],
        {
            name: [*_row(one), one.p50_ms - nothing, found[int(name.split()[0])] if "strong" in name else ""]
            for name, one in taken.items()
        },
    )
    return {**_figures(taken), "recall": found}


async def over_http(services: Services, size: int) -> Figures:
    """At a fixed rate, whatever the server does."""
    queries = clustered(1_000, QUERIES_SEED + 1)
    bodies = [json.dumps({"vector": query.tolist(), "k": K}).encode() for query in queries]
    taken: dict[str, list[load.Load]] = {}
    async with served(services) as port:
        for _ in range(HTTP_ROUNDS):
            for tail in (TAILS[0], TAILS[-1]):
                path = f"/v1/corpora/{tailed(size, tail)}/retrieve"
                one = await load.apart(
                    "open", port, path, bodies, connections=HTTP_CONNECTIONS, seconds=HTTP_S, rate_per_s=HTTP_RATE_PER_S
                )
                taken.setdefault(str(tail), []).append(one)
    best = {tail: min(loads, key=lambda one: one.p99_ms) for tail, loads in taken.items()}
    show(
        f"Over HTTP, {HTTP_RATE_PER_S:.0f} requests/s fall due, by tail (quieter of {HTTP_ROUNDS} rounds)",
        ["p50 ms", "p99 ms", "failures"],
        {tail: [one.p50_ms, one.p99_ms, one.failures] for tail, one in best.items()},
    )
    return {tail: [asdict(one) for one in loads] for tail, loads in taken.items()}


def _figures(taken: Mapping[str, Latency]) -> Figures:
    return {name: asdict(one) for name, one in taken.items()}


async def main(directory: Path, sizes: Sequence[int], variants_of: int, rounds: int) -> None:
    settings = Settings(data_dir=directory)
    async with open_services(settings, role="benchmark", indexing=False) as services:
        await Stock(services).prepare(sorted({*sizes, variants_of}), variants_of)
        figures = {
            "sizes": await over_sizes(services, sizes, rounds),
            "tails": await over_tails(services, variants_of, rounds),
            "dead": await over_dead(services, variants_of, rounds),
            "http": await over_http(services, variants_of),
        }
    path = keep("retrieval", {"variants_of": variants_of, "rounds": rounds, **figures})
    console.print(f"written to {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="chunks")
    parser.add_argument("--variants-of", type=int, default=VARIANTS_OF, help="the size for tails and dead chunks")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--data-dir", type=Path, help="keep the stores here, and use what is there")
    arguments = parser.parse_args()
    # The loop that `ragver serve` runs on.
    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        directory = arguments.data_dir or stack.enter_context(open_directory()) / "data"
        runner.run(main(directory, arguments.sizes, arguments.variants_of, arguments.rounds))
