"""Writes ``schema/openapi.json`` from the code: ``python -m schema.dump_openapi``. A test compares the two."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ragver.api.app import create_app

FILE = Path(__file__).with_name("openapi.json")


def document() -> str:
    """The OpenAPI document as it is kept in the file."""
    app: Any = create_app(nullcontext, 2**20)  # type: ignore[arg-type]
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(document())
