"""The README's first program does what the README says it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import environment, running_server

README = Path(__file__).parents[2] / "README.md"
PROGRAM = re.compile(r"```python\n(.*?)```\s+It prints:\s+```\n(.*?)```", re.DOTALL)


def program_and_promise() -> tuple[str, str]:
    found = PROGRAM.search(README.read_text(encoding="utf-8"))
    assert found is not None
    return found[1], found[2]


def printed(program: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_first_program_prints_what_is_printed_below_it(data_dir: Path) -> None:
    program, promised = program_and_promise()

    assert promised == printed(program, data_dir.parent)


def test_it_does_so_over_a_server_too(data_dir: Path) -> None:
    """The way that its comment names."""
    program, promised = program_and_promise()
    with running_server(data_dir) as server:
        over_a_server = program.replace('ragver.open("./data")', f'ragver.Client("{server.url}")')

        assert promised == printed(over_a_server, data_dir.parent)
