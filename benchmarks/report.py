"""What a run found: a table for the eye, and a file to compare with later."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
"""Not kept in the repository: figures are of one machine on one day."""

console = Console()


def show(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Any]], remark: str = "") -> None:
    """Print a table with one line for each name; numbers with two decimals."""
    table = Table(title=title, title_justify="left", caption=remark or None, caption_justify="left")
    for place, column in enumerate(["", *columns]):
        table.add_column(column, justify="right" if place else "left")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in values))
    console.print(table)


def keep(name: str, figures: Mapping[str, Any]) -> Path:
    """Write the figures down beside the machine and the moment they are of."""
    now = datetime.now(UTC)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps({"at": now.isoformat(), "machine": machine, **figures}, indent=2))
    return path
