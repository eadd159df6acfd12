"""What text and metadata have to be like so that PostgreSQL and JSON can both hold them.

These are validators for pydantic; the types of their errors are codes of ``ragver.errors``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import JsonValue
from pydantic_core import PydanticCustomError

METADATA_BYTES_MAX = 65_536
METADATA_DEPTH_MAX = 32


def clean(text: str) -> str:
    """Return `text` if PostgreSQL and JSON can both hold it, else refuse it with code ``invalid_text``."""
    if "\x00" in text:
        raise PydanticCustomError("invalid_text", "the text holds a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError(
            "invalid_text",
            "the text holds a lone surrogate at position {position}; send well-formed Unicode",
            {"position": error.start},
        ) from None
    return text


def well_formed(value: object) -> object:
    """Refuse a string that is not; goes before pydantic's own check, which would not say where a surrogate stands."""
    return clean(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Refuse control characters, line ends included."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise PydanticCustomError("invalid_text", "control characters are not allowed here")
    return text


def clean_metadata(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse what PostgreSQL cannot hold or an index should not: NUL, surrogates, NaN, and too much of anything."""
    for text in _texts(metadata, METADATA_DEPTH_MAX):
        clean(text)
    try:
        encoded = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise PydanticCustomError("field_invalid", "metadata numbers must be finite") from None
    if len(encoded.encode()) > METADATA_BYTES_MAX:
        raise PydanticCustomError(
            "field_invalid", "metadata may take {max} bytes as JSON at most", {"max": METADATA_BYTES_MAX}
        )
    return metadata


def _texts(value: JsonValue, depth_left: int) -> Iterator[str]:
    """Every string in a JSON value, names of fields included."""
    if depth_left == 0:
        raise PydanticCustomError(
            "field_invalid", "metadata may be nested {max} levels deep at most", {"max": METADATA_DEPTH_MAX}
        )
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for part in value.values():
            yield from _texts(part, depth_left - 1)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, depth_left - 1)
