"""What answers on record cost: commits with ten of them and with a million, and reading what they recall.

`python -m benchmarks.recalls [--answers N]`; see benchmarks/README.md for what the numbers mean.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks.measure import Contestant, take_turns
from benchmarks.report import keep, show
from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.ledger.recalls import Position
from ragver.recalls import position_of
from ragver.settings import Settings
from ragver.types import Epoch, Scope
from tests.support.postgres import open_directory

CORPUS = "bench"
NEAR = [1.0, 0.0, 0.0, 0.0]
FEW = 10
ROUNDS = 6
"""Documents of `CHUNKS` chunks that are deleted, each in a commit; the first one warms up."""
CHUNKS = 10_000
SMALL = 40
"""Documents of one chunk that ten answers cite, each deleted in a commit of its own."""
CITED_EACH = 10
READS = 30

# Answers that cite a random chunk of the big documents and rest on two more; and ten for each small document.
ANSWERS = """
    INSERT INTO answer (corpus_id, key, snapshot_epoch, epoch, verdict, policy, scope, delivered_epoch, delivered_at,
                        reader, labels)
    SELECT c.id, 'answer-' || n, c.epoch, c.epoch, 'pass', 'strict', 'cited', c.epoch, now(), '', '{}'
    FROM corpus c, generate_series(1, $1::int) AS n
"""
CITATIONS = """
    WITH big AS (SELECT array_agg(id) AS ids FROM chunk WHERE text LIKE 'big %')
    INSERT INTO answer_citation (corpus_id, answer_id, chunk_id, ref, status, cited_epoch, rested_epoch)
    SELECT a.corpus_id, a.id, big.ids[1 + floor(random() * cardinality(big.ids))::int], hit,
           CASE WHEN hit = 1 THEN 'live' END, CASE WHEN hit = 1 THEN a.epoch END, a.epoch
    FROM answer a, generate_series(1, 3) AS hit, big
    ON CONFLICT DO NOTHING
"""
SMALL_CITATIONS = """
    WITH made AS (
        INSERT INTO answer (corpus_id, key, snapshot_epoch, epoch, verdict, policy, scope, delivered_epoch,
                            delivered_at, reader, labels)
        SELECT k.corpus_id, 'small-' || k.id || '-' || n, c.epoch, c.epoch, 'pass', 'strict', 'cited', c.epoch, now(),
               '', '{}'
        FROM chunk k JOIN corpus c ON c.id = k.corpus_id, generate_series(1, $1::int) AS n WHERE k.text LIKE 'small %'
        RETURNING corpus_id, id, key, epoch
    )
    INSERT INTO answer_citation (corpus_id, answer_id, chunk_id, ref, status, cited_epoch, rested_epoch)
    SELECT corpus_id, id, split_part(key, '-', 2)::bigint, 1, 'live', epoch, epoch FROM made
"""


def chunks(kind: str, number: int, count: int) -> list[wire.ChunkInput]:
    return [wire.ChunkInput(text=f"{kind} {number} {place}", vector=NEAR) for place in range(count)]


async def fill(services: Services, database_url: str, answers: int) -> None:
    """Documents to delete, and answers that rest on them."""
    embedding = wire.Embedding(provider="external", dimensions=len(NEAR))
    await services.catalog.create(wire.CorpusCreate(name=CORPUS, embedding=embedding))
    for number in range(ROUNDS):
        await put(services, f"big-{number}", chunks("big", number, CHUNKS))
    for number in range(SMALL):
        await put(services, f"small-{number}", chunks("small", number, 1))
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(ANSWERS, answers)
        await connection.execute(CITATIONS)
        await connection.execute(SMALL_CITATIONS, CITED_EACH)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def put(services: Services, key: str, pieces: list[wire.ChunkInput]) -> None:
    operation = wire.Put(op="put", key=key, chunks=pieces)
    await services.writer.commit(CORPUS, wire.CommitRequest(ops=[operation]))


async def delete(services: Services, key: str) -> int:
    operation = wire.Delete(op="delete", key=key)
    return (await services.writer.commit(CORPUS, wire.CommitRequest(ops=[operation]))).epoch


def deleting(services: Services, kind: str) -> Contestant:
    async def one(number: int) -> None:
        await delete(services, f"{kind}-{number}")

    return one


def reading(services: Services, first: int) -> Contestant:
    """The recalls of one small commit after the other."""

    async def one(number: int) -> None:
        # As a follower has it that is one commit behind: everything before has been told.
        page = await services.recalls.page(CORPUS, Position(Epoch(first - 1 + number)), Scope.CITED, CITED_EACH)
        assert CITED_EACH == len(page.recalls)

    return one


def recording(services: Services, snapshot: str, *, record: bool) -> Contestant:
    request = wire.ValidateRequest(snapshot=snapshot, scope=Scope.CONTEXT, record=record)

    async def one(number: int) -> None:
        await (services.answers if record else services.validation).validate(CORPUS, request)

    return one


async def huge(services: Services, epoch: int) -> dict[str, float]:
    """The first page of what one commit of 10,000 deaths recalls, and one from the middle."""
    taken: dict[str, float] = {}
    after = Position(Epoch(epoch - 1))
    for name in ("first page", "second page"):
        started = time.perf_counter()
        page = await services.recalls.page(CORPUS, after, Scope.CITED, 1_000)
        taken[name] = (time.perf_counter() - started) * 1000
        after = position_of(page.next_cursor)
    return taken


def opened(directory: Path) -> AbstractAsyncContextManager[Services]:
    """Without an indexer, which would work in between: nothing that is measured here needs an index."""
    settings = Settings(data_dir=directory, tail_rows_max=2 * ROUNDS * CHUNKS)
    return open_services(settings, role="benchmark", indexing=False)


async def main(directory: Path, answers: int) -> None:
    async with (
        opened(directory / "few") as few,
        opened(directory / "many") as many,
    ):
        both = {f"{FEW} answers": few, f"{answers:,} answers": many}
        for services, count in ((few, FEW), (many, answers)):
            print(f"filling a ledger with {count:,} answers …", file=sys.stderr)
            await fill(services, services.database.url, count)
        await measure(both)


async def measure(both: dict[str, Services]) -> None:
    few, many = both
    figures: dict[str, Any] = {}
    found = {
        name: await services.retrieval.retrieve(CORPUS, wire.RetrieveRequest(vector=NEAR, k=10))
        for name, services in both.items()
    }
    validating = {
        f"{name}{', recorded' if record else ''}": recording(services, found[name].snapshot, record=record)
        for name, services in both.items()
        for record in (False, True)
    }
    first = {name: (await services.catalog.corpus(CORPUS)).head + 1 for name, services in both.items()}
    for title, contestants, rounds, warm_up in (
        ("Validation of ten hits, without and with a record (in process)", validating, 300, 50),
        ("Delete of a document of one chunk", {n: deleting(s, "small") for n, s in both.items()}, SMALL - 1, 1),
        (
            f"Reading the {CITED_EACH} recalls of one such commit",
            {n: reading(s, first[n]) for n, s in both.items()},
            READS,
            5,
        ),
        (f"Delete of a document of {CHUNKS:,} chunks", {n: deleting(s, "big") for n, s in both.items()}, ROUNDS - 1, 1),
    ):
        taken = await take_turns(contestants, rounds, warm_up)
        ratio = taken[many].p50_ms / taken[few].p50_ms
        rows = {name: list(asdict(one).values()) for name, one in taken.items()}
        show(title, ["p50 ms", "p95 ms", "p99 ms"], rows, f"many / few = {ratio:.2f}")
        figures[title] = {name: asdict(one) for name, one in taken.items()}
    head = (await both[many].catalog.corpus(CORPUS)).head
    pages = await huge(both[many], head)
    show(f"1,000 recalls of a commit that killed {CHUNKS:,} cited chunks", ["ms"], {n: [ms] for n, ms in pages.items()})
    print(keep("recalls", {**figures, "huge": pages}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000)
    arguments = parser.parse_args()
    # The loop that `ragver serve` runs on.
    with open_directory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(directory, arguments.answers))
