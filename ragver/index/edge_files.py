"""The directory of an embedded collection: which of the shards in it counts, and what it was made for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from ragver.errors import IndexUnavailable
from ragver.index.port import Collection

MARKER = "collection.json"
SHARD = "shard"
"""What the names of shard directories begin with. No name is used twice."""


def new_name() -> str:
    return f"{SHARD}-{uuid4().hex}"


def mark(path: Path, collection: Collection, shard: str) -> None:
    """Say, in one rename, which directory holds the collection."""
    draft = path / f"{MARKER}.draft"
    draft.write_text(json.dumps({**_description(collection), SHARD: shard}))
    sync(draft)
    draft.rename(path / MARKER)


def require_same(path: Path, collection: Collection) -> str:
    """The name of the shard that counts, if it was made for such a collection."""
    found = json.loads((path / MARKER).read_text())
    shard = str(found.pop(SHARD, SHARD))
    if found != _description(collection):
        raise IndexUnavailable(f"{path} holds {found}, not {_description(collection)}; remove it to have it rebuilt")
    return shard


def _description(collection: Collection) -> dict[str, Any]:
    return {
        "dimensions": collection.dimensions,
        "distance": str(collection.distance),
        "filterable": {field: str(kind) for field, kind in collection.filterable.items()},
    }


def sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
