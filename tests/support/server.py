"""A `ragver serve` in a process of its own, on any free port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragver.embedded.datadir import DataDir

START_S_MAX = 60.0
STOP_S_MAX = 30.0
RAGVER = [sys.executable, "-c", "from ragver.cli import main; main()"]


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]


def environment(**settings: str) -> dict[str, str]:
    """The environment without anybody's settings but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAGVER_")}
    return inherited | {f"RAGVER_{name.upper()}": value for name, value in settings.items()}


@contextmanager
def running_server(data_dir: Path, *options: str, **settings: str) -> Iterator[Server]:
    """Serve on `data_dir` until the end of the block; settings are named as in ``ragver.settings``."""
    command = [*RAGVER, "serve", "--port", "0", *options]
    with subprocess.Popen(command, env=environment(data_dir=str(data_dir), **settings)) as process:
        try:
            yield Server(_published_url(data_dir, process), process)
        finally:
            process.terminate()
            process.wait(STOP_S_MAX)


def _published_url(data_dir: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        holder = DataDir(data_dir).holder() if data_dir.exists() else None
        if holder is not None and holder.url is not None and holder.pid == process.pid:
            return holder.url
        time.sleep(0.05)
    raise TimeoutError(f"no server on {data_dir} after {START_S_MAX} s")
