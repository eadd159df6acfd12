"""Python in a process of its own, to be spoken to by lines and killed at will."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Child:
    """A running script; it ends when its standard input does, if it reads from it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> str:
        """The next line it prints; fails with what it complained about if it ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the child ended with {self._process.wait()}"
        return line.rstrip("\n")

    def rest(self) -> list[str]:
        """What it printed and nobody has read, up to its end."""
        assert self._process.stdout is not None
        return self._process.stdout.read().splitlines()

    def tell(self, line: str = "") -> None:
        """Print a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """``kill -9``, and wait for the end."""
        self._process.kill()
        self._process.wait()


@contextmanager
def child(script: str, *arguments: str) -> Iterator[Child]:
    """Run `script` with the tests' Python; killed at the end of the block if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
