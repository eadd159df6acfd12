"""The whole recorded history through the command line, then every check of the acceptance test on all of it.

`python -m benchmarks.replay [--data-dir DIR]`: prints the import's own summary, what was checked, and recall@10.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
from contextlib import ExitStack
from pathlib import Path

from ragver.client import AsyncClient
from tests.support import recorded
from tests.support.postgres import open_directory
from tests.support.replay_checks import check_documents, check_questions
from tests.support.server import RAGVER, environment, running_server

CORPUS = "handbook"
CHECKED_RECORDS = (0, 1_000, 2_000, 3_000)


def import_all(data_dir: Path) -> None:
    """Replay everything; what an earlier run has committed is passed over."""
    command = [*RAGVER, "import", "--replay", str(recorded.HISTORY), "--corpus", CORPUS]
    subprocess.run(command, env=environment(data_dir=str(data_dir)), check=True)


async def check_all(url: str) -> None:
    history = recorded.RecordedHistory()
    async with AsyncClient(url) as client:
        corpus = await client.corpus(CORPUS)
        assert corpus.head == len(history)
        records = [*CHECKED_RECORDS, len(history) - 1]
        await check_documents(client, CORPUS, history, records)
        print(f"documents equal a plain replay at epochs {', '.join(str(record + 1) for record in records)}")
        outcome = await check_questions(client, CORPUS, history)
    statuses = ", ".join(f"{count} {status.value}" for status, count in sorted(outcome.statuses.items()))
    print(f"questions: {outcome.asked} asked, {statuses}; wrong: {outcome.wrong or 'none'}")
    print(f"recall@10 of the hashing embedder: {outcome.recalled / outcome.asked:.2f}")


def main(data_dir: Path | None) -> None:
    with ExitStack() as stack:
        directory = data_dir or stack.enter_context(open_directory()) / ".ragver"
        server = stack.enter_context(running_server(directory))
        import_all(directory)
        asyncio.run(check_all(server.url))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="keep the stores here, and go on where they are")
    main(parser.parse_args().data_dir)
