"""What retention gives back to the disk: both stores' sizes before, after a collection, and after a full one.

``python -m benchmarks.space [chunks]``: writes so many chunks (20,000 if not said), deletes three quarters of them, and
collects. Real embedded stores, durability on. Sizes do not depend on the machine; times do.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sqlalchemy import text

from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.ledger import scrubbing
from ragver.settings import Settings

CORPUS = "space"
DIMENSIONS = 384
CHUNKS_PER_DOCUMENT = 20
DOCUMENTS_PER_COMMIT = 10
TEXT_CHARACTERS = 600
GONE = 0.75
CATCH_UP_S_MAX = 600.0


def main() -> None:
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(prefix="ragver-space-") as directory:
        asyncio.run(measured(Path(directory), chunks))


async def measured(directory: Path, chunks: int) -> None:
    settings = Settings(data_dir=directory, gc_interval_s=10**6)
    async with open_services(settings, role="benchmark") as services:
        await services.catalog.create(wire.CorpusCreate(name=CORPUS, embedding=_external()))
        keys = await written(services, chunks)
        await show(services, directory, "written and indexed")
        await deleted(services, keys[: round(len(keys) * GONE)])
        await show(services, directory, "three quarters deleted")
        async with services.database.autocommit() as connection:
            await connection.fetch(text("UPDATE corpus SET retention_s = 0"))
        await timed(services, directory, full=False)
        await timed(services, directory, full=True)


def _external() -> wire.Embedding:
    return wire.Embedding(provider="external", dimensions=DIMENSIONS)


async def written(services: Services, chunks: int) -> list[str]:
    chance = np.random.default_rng(1)
    keys = [f"document-{number}" for number in range(chunks // CHUNKS_PER_DOCUMENT)]
    for start in range(0, len(keys), DOCUMENTS_PER_COMMIT):
        ops = [_put(key, chance) for key in keys[start : start + DOCUMENTS_PER_COMMIT]]
        await services.writer.commit(CORPUS, wire.CommitRequest(ops=ops))
    await caught_up(services)
    return keys


def _put(key: str, chance: np.random.Generator) -> wire.Put:
    chunks = [
        wire.ChunkInput(
            text=chance.bytes(TEXT_CHARACTERS // 2).hex(), vector=chance.standard_normal(DIMENSIONS).tolist()
        )
        for _ in range(CHUNKS_PER_DOCUMENT)
    ]
    return wire.Put(op="put", key=key, chunks=chunks)


async def deleted(services: Services, keys: list[str]) -> None:
    ops: list[wire.Operation] = [wire.Delete(op="delete", key=key) for key in keys]
    await services.writer.commit(CORPUS, wire.CommitRequest(ops=ops))
    await caught_up(services)


async def caught_up(services: Services) -> None:
    async with asyncio.timeout(CATCH_UP_S_MAX):
        while True:
            corpus = await services.catalog.corpus(CORPUS)
            if corpus.applied_epoch == corpus.head:
                return
            await asyncio.sleep(0.1)


async def timed(services: Services, directory: Path, *, full: bool) -> None:
    started = time.perf_counter()
    done = await services.retention.collect(CORPUS, full=full)
    seconds = time.perf_counter() - started
    await show(services, directory, f"gc{' --full' if full else ''}: {done.chunks} chunks in {seconds:.1f} s")
    for step in done.full:
        print(f"    {step.step:<48} {step.seconds:6.2f} s")


async def show(services: Services, directory: Path, what: str) -> None:
    async with services.database.autocommit() as connection:
        await connection.fetch(text("CHECKPOINT"))
    ledger = await scrubbing.size(services.database)
    print(
        f"{what:<36} tables {_mb(ledger)}  postgres {_mb(_on_disk(directory / 'postgres'))}"
        f"  index {_mb(_on_disk(directory / 'index'))}",
        flush=True,
    )


def _on_disk(directory: Path) -> int:
    """Bytes that are really taken: the engine's files have holes."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def _mb(size: int) -> str:
    return f"{size / 1e6:7.1f} MB"


if __name__ == "__main__":
    main()
