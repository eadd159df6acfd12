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
PACKAGE = HERE.parent
MODULES = ("events", "transport", "content", "answering", "operations", "client", "corpus")
SOURCES = {HERE / "sync" / f"{name}.py": HERE / f"{name}.py" for name in MODULES}
SOURCES[PACKAGE / "gate" / "sync.py"] = PACKAGE / "gate" / "stream.py"
"""Synchronous modules, and what each is derived from."""
NOTE = "# Derived from ragver/{source} by `python -m ragver.client.derive`: change that one, not this.\n"

NAMES = (
    *("Client", "Content", "Answering", "Operations", "Corpus", "Transport", "Flow", "GatedStream", "Validate"),
    *("BaseTransport", "Iterator", "Iterable"),
)
"""What is called the same with an `Async` before it: of ours, and of others."""

TWINS = [
    (r"await asyncio\.sleep", "time.sleep"),
    (r"^import asyncio\n", ""),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\b(async|await) ", ""),
    (r"__a(enter|exit|iter)__", r"__\1__"),
    (r"\baclos(e|ing)\b", r"clos\1"),
    (r"\baread\b", "read"),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (
        r"\bAsync(Client|Corpus|Content|Answering|Operations|Transport|BaseTransport|Flow|GatedStream|Iterator|Iterable|Validate)\b",
        r"\1",
    ),
    (r"\bAsyncGenerator\[(\w+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"ragver\.gate\.flow\b", "ragver.gate.across"),
    (r"ragver\.gate\.stream\b", "ragver.gate.sync"),
    (r"\b(A|a)n async context manager", r"\1 context manager"),
    (r"many tasks", "many threads"),
    (rf"ragver\.client\.({'|'.join(MODULES)})\b", r"ragver.client.sync.\1"),
    (r"The asynchronous client\. .*\"\"\"", 'The synchronous client."""'),
    (r"The asynchronous face", "The synchronous face"),
]
"""What makes synchronous code of asynchronous: patterns and what takes their place, in this order."""


def derived() -> dict[Path, str]:
    """The synchronous modules as they should be."""
    return {target: _formatted(_synchronous(source)) for target, source in SOURCES.items()}


def _synchronous(source: Path) -> str:
    text = source.read_text(encoding="utf-8")
    for pattern, twin in TWINS:
        text = re.sub(pattern, twin, text, flags=re.MULTILINE)
    return NOTE.format(source=source.relative_to(PACKAGE).as_posix()) + text


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
    for target, text in derived().items():
        target.write_text(text, encoding="utf-8")
