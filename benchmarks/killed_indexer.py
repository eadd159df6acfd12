"""The recorded history, with the server and its indexer killed (-9) about every second and the index deleted half-way.

`python -m benchmarks.killed_indexer [--records N] [--seed N]`: prints the seed, the kills, and that at the end the
index equals the ledger. Only one process may hold an embedded index, so the indexer dies with the server around it;
commits that got no answer are sent again under their idempotency keys.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ragver.cli.sources import ReplaySource, SourceCommit
from ragver.client import AsyncClient
from ragver.client.errors import ServerUnreachable
from ragver.embedded.datadir import DataDir
from ragver.embedded.postgres import EmbeddedPostgres
from ragver.wire import CorpusCreate
from tests.support import recorded
from tests.support.ledger import check_chain, check_index
from tests.support.postgres import open_directory
from tests.support.server import running_server
from tests.support.services import caught_up, open_test_services

CORPUS = "handbook"
LIFE_S_MAX = 2.0
RETRY_S = 0.02


class Killer:
    """Keeps a server running on a data directory, and kills it at random."""

    def __init__(self, data_dir: Path, port: int, chance: random.Random) -> None:
        self._data_dir = data_dir
        self._port = port
        self._chance = chance
        self.kills = 0
        self.index_doomed = threading.Event()
        """The next kill takes the index with it."""
        self.enough = threading.Event()

    def run(self) -> None:
        """Go on until it is enough; the last server is told to stop."""
        while not self.enough.is_set():
            with running_server(self._data_dir, "--port", str(self._port)) as server:
                # Counted from when it serves: its indexer runs a little longer than that.
                if self.enough.wait(self._chance.uniform(0, LIFE_S_MAX)):
                    return
                server.process.kill()
                server.process.wait()
                self.kills += 1
            if self.index_doomed.is_set():
                self.index_doomed.clear()
                shutil.rmtree(DataDir(self._data_dir).index)
                print(f"kill {self.kills}: the index is deleted", flush=True)


async def feed(client: AsyncClient, commits: Sequence[SourceCommit], killer: Killer) -> int:
    """Send the commits, each until it is acknowledged; how many sendings got no answer."""
    unanswered = 0
    for number, commit in enumerate(commits):
        if number == len(commits) // 2:
            killer.index_doomed.set()
        while not await _sent(client, commit):
            unanswered += 1
            await asyncio.sleep(RETRY_S)
    return unanswered


async def _sent(client: AsyncClient, commit: SourceCommit) -> bool:
    try:
        await client.commit(
            CORPUS, commit.operations, reason=commit.reason, actor=commit.actor, idempotency_key=commit.key
        )
    except ServerUnreachable:
        return False
    return True


async def replay(data_dir: Path, commits: Sequence[SourceCommit], chance: random.Random) -> None:
    """Feed a server that is killed all the time."""
    port = free_port()
    with running_server(data_dir, "--port", str(port)):
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            await client.create_corpus(CorpusCreate(name=CORPUS))
    killer = Killer(data_dir, port, chance)
    killing = asyncio.create_task(asyncio.to_thread(killer.run))
    started = time.perf_counter()
    try:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            unanswered = await feed(client, commits, killer)
    finally:
        killer.enough.set()
        await killing
    print(
        f"{len(commits):,} commits in {time.perf_counter() - started:.0f} s; {killer.kills} kills, "
        f"{unanswered} sendings without an answer"
    )


async def compare(data_dir: Path, commits: int) -> None:
    """Let an indexer that nobody kills finish, and hold the index against the ledger."""
    async with open_test_services(None, data_dir, indexing=True) as services:
        behind = await services.catalog.corpus(CORPUS)
        print(f"after the last kill: epoch {behind.head}, of which {behind.applied_epoch} are applied")
        await caught_up(services, CORPUS)
        assert commits == await check_chain(services.database.url, CORPUS)
        points = await check_index(services, CORPUS)
        print(f"index = ledger: {points:,} points, ids, epochs, labels and vectors")


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(records: int | None, seed: int) -> None:
    print(f"seed {seed}", flush=True)
    commits = list(islice(ReplaySource(recorded.HISTORY).commits(), records))
    with open_directory() as directory:
        data_dir = directory / ".ragver"
        try:
            asyncio.run(replay(data_dir, commits, random.Random(seed)))
            asyncio.run(compare(data_dir, len(commits)))
        finally:
            EmbeddedPostgres(DataDir(data_dir).postgres).stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, help="only the first so many")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    main(arguments.records, arguments.seed)
