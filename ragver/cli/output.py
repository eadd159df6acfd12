"""How answers look: tables on a terminal, tab-separated text elsewhere, the API's JSON on request."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, OverflowMethod
from rich.table import Table
from rich.text import Text

from ragver.errors import RagverError

EXCERPT_CHARACTERS = 200
STYLES = {
    "pass": "bold green",
    "flag": "bold yellow",
    "reject": "bold red",
    "live": "green",
    "intact": "bold green",
    "complete": "bold green",
    "genuine": "bold green",
    "pending": "bold yellow",
    "stopped": "bold yellow",
    "failed": "bold red",
    "broken": "bold red",
    "superseded": "yellow",
    "misquoted": "yellow",
    "not_retrieved": "yellow",
    "deleted": "red",
    "erased": "red",
    "forbidden": "red",
    "unknown": "red",
    "created": "green",
    "updated": "cyan",
    "renamed": "cyan",
    "unchanged": "dim",
}
"""By verdict, citation status or document status; words without a style are printed plainly."""


PADDING = 2
"""Blank columns of the terminal between two columns of a table."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and what becomes of its text where the terminal is narrow: only some give way."""

    title: str
    justify: Literal["left", "right"] = "left"
    narrow: Literal["keep", "wrap", "cut"] = "keep"


def on_terminal() -> bool:
    """Whether a person reads along."""
    return sys.stdout.isatty()


def show_json(answer: Any) -> None:
    """Print an answer of the API, or values made of several, as JSON."""
    print(json.dumps(_plain(answer), ensure_ascii=False, indent=2 if on_terminal() else None))


def show_json_line(answer: Any) -> None:
    """Print an answer as one line of JSON, at once, for whoever reads as it comes."""
    print(json.dumps(_plain(answer), ensure_ascii=False), flush=True)


def show_line(text: str) -> None:
    """Print a line for people; long lines are left to the terminal so that tokens can be copied."""
    Console(highlight=False, soft_wrap=True).print(text)


def show_fields(fields: Mapping[str, object]) -> None:
    """Print named values, one a line."""
    if not on_terminal():
        _print_tabbed(fields.items())
        return
    width = max(map(len, fields))
    console = Console(highlight=False, soft_wrap=True)
    for name, value in fields.items():
        console.print(Text(f"{name:<{width}}  ", style="dim"), _styled(value), sep="", end="\n")


def show_rows(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, titles: bool = True) -> None:
    """Print a table; without a terminal, its rows alone with tabs between the values."""
    if not on_terminal():
        _print_tabbed(rows)
        return
    console = Console(highlight=False)
    cells = [[_text(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, show_header=titles, header_style="dim", padding=(0, PADDING, 0, 0))
    for column, width in zip(columns, _widths(columns, cells, console.width), strict=True):
        overflow: OverflowMethod = "ellipsis" if column.narrow == "cut" else "fold"
        table.add_column(
            column.title, justify=column.justify, no_wrap=column.narrow != "wrap", overflow=overflow, width=width
        )
    for row in cells:
        table.add_row(*map(_styled, row))
    console.print(table)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], available: int) -> list[int]:
    """What each column needs; where that is more than there is, those that give way share what the others leave."""
    widths = [
        max(map(cell_len, (column.title, *texts)))
        for column, texts in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True)
    ]
    yielding = [place for place, column in enumerate(columns) if column.narrow != "keep"]
    left = available - PADDING * (len(columns) - 1) - sum(widths) + sum(widths[place] for place in yielding)
    # The narrowest first: what it does not need of its share is the others'.
    yielding.sort(key=lambda place: widths[place])
    for others, place in zip(range(len(yielding), 0, -1), yielding, strict=True):
        widths[place] = max(1, min(widths[place], left // others))
        left -= widths[place]
    return widths


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1] + "…"


def complain(message: str) -> None:
    """Say on stderr why something could not be done."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text("error: ", style="bold red"), Text(message), sep="")


def explained(error: Exception) -> str | None:
    """What to tell people of a failure that was foreseen; None for one that was not."""
    from pydantic import ValidationError

    match error:
        case RagverError():
            return f"{error.detail} ({error.code})"
        case ValidationError():
            return f"{'; '.join(_complaint(one) for one in error.errors())} (invalid_request)"
        case ModuleNotFoundError() if not (error.name or "ragver").startswith("ragver"):
            return f"this command needs {error.name}: install ragver[embedded] (not_installed)"
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror} (file_error)"
        case _:
            return None


def _complaint(found: Any) -> str:
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {found['msg']}" if place else str(found["msg"])


def _plain(answer: Any) -> Any:
    from pydantic import BaseModel

    match answer:
        case BaseModel():
            return answer.model_dump(mode="json")
        case Mapping():
            return {name: _plain(value) for name, value in answer.items()}
        case list():
            return [_plain(value) for value in answer]
        case _:
            return answer


def _print_tabbed(rows: Iterable[Sequence[object]]) -> None:
    for row in rows:
        print("\t".join(" ".join(_text(value).split()) for value in row), flush=True)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _styled(value: object) -> Text:
    text = _text(value)
    return Text(text, style=STYLES.get(text, ""))
