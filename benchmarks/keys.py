"""What the look at an API key costs the call that stands in front of every answer: `python -m benchmarks.keys`."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import load
from benchmarks.report import keep, show
from benchmarks.serving import served
from ragver import wire
from ragver.bootstrap import Services, open_services
from ragver.settings import Settings
from ragver.types import Role
from tests.support.postgres import open_directory

CORPUS = "bench"
ROUNDS = 12
LOAD_S = 2.0
CONNECTIONS = 32
RATE_PER_S = 100_000.0
"""Never reached: what counting costs, not what it refuses."""
BARE = "nobody at the door"


async def main(directory: Path) -> None:
    async with open_services(Settings(data_dir=directory), role="benchmark") as services:
        body = await _body(services)
        keys = {
            "with a key": await _key(services, "plain"),
            "with a rate": await _key(services, "counted", rate_per_s=RATE_PER_S),
        }
        async with served(services, guarded=False) as bare, served(services) as guarded:
            targets: dict[str, tuple[int, str | None]] = {BARE: (bare, None)}
            targets |= {name: (guarded, key.secret) for name, key in keys.items()}
            rounds = [
                {name: await _load(port, api_key, body) for name, (port, api_key) in targets.items()}
                for _ in range(ROUNDS)
            ]
    ratios = {name: statistics.median(one[name] / one[BARE] for one in rounds) for name in targets}
    best = {name: max(one[name] for one in rounds) for name in targets}
    show(
        f"Validation over HTTP, {CONNECTIONS} connections, {ROUNDS} rounds in turns",
        ["best requests/s", "median share"],
        {name: [best[name], ratios[name]] for name in targets},
    )
    print(f"written to {keep('keys', {'rounds': rounds, 'ratios': ratios})}")


async def _body(services: Services) -> bytes:
    await services.catalog.create(wire.CorpusCreate(name=CORPUS))
    filler = [wire.Put(op="put", key=f"{n}.md", text=f"Filler number {n}, for a benchmark.") for n in range(10)]
    await services.writer.commit(CORPUS, wire.CommitRequest(ops=list(filler)))
    found = await services.retrieval.retrieve(CORPUS, wire.RetrieveRequest(query="filler", k=10))
    return json.dumps({"snapshot": found.snapshot, "answer": "It is filler [1]. All of it [2, 3]."}).encode()


async def _key(services: Services, name: str, **more: Any) -> wire.KeyCreated:
    return await services.keys.create_key(wire.KeyCreate(name=name, role=Role.READER, **more))


async def _load(port: int, api_key: str | None, body: bytes) -> float:
    path = f"/v1/corpora/{CORPUS}/validate"
    result = await load.apart("closed", port, path, [body], connections=CONNECTIONS, seconds=LOAD_S, api_key=api_key)
    if result.failures:
        raise RuntimeError(f"{result.failures} validations were refused")
    return result.requests_per_s


if __name__ == "__main__":
    # The loop that `ragver serve` runs on.
    with open_directory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(directory / "data"))
