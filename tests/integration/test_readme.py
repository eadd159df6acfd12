"""The README's first program does what the README says it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.server import environment, running_server

README = Path(__file__).parents[2] / "README.md"
PROGRAM = re.compile(r"```python\n(.*?)```\s+It prints:\s+```\n(.*?)```", re.DOTALL)


def test_the_first_program_prints_what_is_printed_below_it(data_dir: Path) -> None:
    found = PROGRAM.search(README.read_text(encoding="utf-8"))
    assert found is not None
    program, promised = found.groups()
    with running_server(data_dir) as server:
        program = program.replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE, text=True, check=True
        )

    assert promised == done.stdout
