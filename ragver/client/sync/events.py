# Derived from ragver/client/events.py by `python -m ragver.client.derive`: change that one, not this.
"""Server-sent events, as far as the change feed uses them (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator


def data_of(stream: Iterator[bytes]) -> Iterator[bytes]:
    """The data of each event, in order; comments and an event cut off by the end are passed over."""
    data: list[bytes] = []
    for line in _lines(stream):
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []


def _lines(stream: Iterator[bytes]) -> Iterator[bytes]:
    # Not httpx's own lines: those also end at U+2028 and its like, which texts may hold.
    parts: list[bytes] = []
    for piece in stream:
        head, *rest = piece.split(b"\n")
        parts.append(head)
        for part in rest:
            yield b"".join(parts).removesuffix(b"\r")
            parts = [part]
