"""The command line, run as its users run it or in this process, and a server on a data directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

PROGRAM = [sys.executable, "-c", "from ragver.cli import main; main()"]
PROCESS_S_MAX = 120


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, after it went well."""
        assert 0 == self.status, self.err
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """Its lines, by the tabs in them, after it went well."""
        assert 0 == self.status, self.err
        return [line.split("\t") for line in self.out.splitlines()]


def settings_of(data_dir: Path, others: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for commands on a data directory, without what the tests' own environment may say."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGVER_")}
    return {**kept, "RAGVER_DATA_DIR": str(data_dir), **(others or {})}


class CommandLine:
    """Commands on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def __call__(self, *arguments: object, stdin: str | bytes = "", **settings: str) -> Ran:
        """Run a command in this process."""
        from ragver.cli.app import app

        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("RAGVER_")}
        done = CliRunner(env=environment | settings_of(self.data_dir, settings)).invoke(
            app, [str(argument) for argument in arguments], input=stdin, catch_exceptions=False
        )
        return Ran(done.exit_code, done.stdout, done.stderr)

    def apart(self, *arguments: object, stdin: str = "", **settings: str) -> Ran:
        """Run a command in a process of its own."""
        done = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env=settings_of(self.data_dir, settings),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PROCESS_S_MAX,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def running(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A command in a process of its own that goes on; killed at the end of the block if it still does."""
        with subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            env=settings_of(self.data_dir),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def serving(self, *options: object) -> Iterator[Serving]:
        """A server on the data directory, at a free port; stopped at the end of the block."""
        with self.running("serve", "--port", 0, *options) as process:
            assert process.stderr is not None
            lines = []
            while line := process.stderr.readline():
                lines.append(line)
                if line.startswith("{") and (entry := json.loads(line))["event"] == "serving":
                    break
            else:
                raise AssertionError(f"the server did not start: {''.join(lines)}")
            server = Serving(process, entry["url"], entry)
            yield server
            server.stop()


@dataclass(frozen=True, slots=True)
class Serving:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    said: Mapping[str, Any]
    """Its log's entry when it began to serve."""

    def stop(self, number: int = signal.SIGTERM) -> Ran:
        """Tell it to stop, and what it said until it had."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PROCESS_S_MAX)
        return Ran(self.process.returncode, out, err)
