"""Derives the synchronous client from the asynchronous one. A tool of development: `python -m ragver.client.derive`.

The asynchronous modules are the source; their twins in ``ragver/client/sync`` are checked in, so that types, help
and tracebacks are those of ordinary code. A test compares.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("events.py", "transport.py", "client.py", "corpus.py")
NOTE = "# Derived from ragver/client/{name} by `python -m ragver.client.derive`: change that one, not this.\n"

TWINS = [
    (r"await asyncio\.sleep", "time.sleep"),
    (r"^import asyncio\n", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\b(async|await) ", ""),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\baread\b", "read"),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bAsync(Client|Corpus|Transport|BaseTransport|Iterator|Iterable)\b", r"\1"),
    (r"\b(A|a)n async context manager", r"\1 context manager"),
    (r"many tasks", "many threads"),
    (r"ragver\.client\.(events|transport|client|corpus)\b", r"ragver.client.sync.\1"),
    (r"The asynchronous client\. .*\"\"\"", 'The synchronous client."""'),
]
"""What makes synchronous code of asynchronous: patterns and what takes their place, in this order."""


def derived() -> dict[str, str]:
    """The synchronous modules as they should be, by file name."""
    return {name: _formatted(_synchronous(name)) for name in SOURCES}


def _synchronous(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    for pattern, twin in TWINS:
        text = re.sub(pattern, twin, text, flags=re.MULTILINE)
    return NOTE.format(name=name) + text


def _formatted(text: str) -> str:
    for command in (["check", "--fix", "--quiet", "--select", "I,F811"], ["format", "--quiet"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(HERE / "sync" / "derived.py"), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


if __name__ == "__main__":
    for name, text in derived().items():
        (HERE / "sync" / name).write_text(text, encoding="utf-8")
