"""Answers of the models' SDKs, or the same as parsed JSON: read by name, whichever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def get(thing: object, name: str) -> Any:
    """A field of an object or a key of a mapping; None if there is none."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def each(thing: object, name: str) -> Iterator[Any]:
    """The members of a field that is a list; none if it is missing."""
    yield from get(thing, name) or ()


def number(thing: object, name: str) -> int | None:
    """A field that is a whole number; None if it is not."""
    value = get(thing, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
