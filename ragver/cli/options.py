"""Options that many commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ragver.cli import connection
from ragver.types import Distance

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Talk to this server.", rich_help_panel="Where", show_default=False),
]


def _present(api_key: str | None) -> None:
    connection.presented.set(api_key or None)


ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="RAGVER_API_KEY",
        help="For a server that asks for one. Better in the variable: others may see what a command is given.",
        rich_help_panel="Where",
        show_default=False,
        callback=_present,
        expose_value=False,
    ),
]
"""Every command with `--url` has this too, without saying so; see ``ragver.cli.app``."""
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="RAGVER_DATA_DIR",
        help="Where the embedded stores live; .ragver if not given.",
        rich_help_panel="Where",
        show_default=False,
    ),
]
Corpus = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        metavar="NAME",
        envvar="RAGVER_CORPUS",
        help="The corpus; needed only where there are several.",
        rich_help_panel="Where",
        show_default=False,
    ),
]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="The provider's model.", show_default=False)]
Dimensions = Annotated[int | None, typer.Option(metavar="N", min=1, help="The vectors' length.", show_default=False)]
DistanceName = Annotated[
    Distance | None,
    typer.Option(metavar="NAME", help=f"How vectors are compared: {', '.join(Distance)}.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the log of commits.", show_default=False)]
Actor = Annotated[str | None, typer.Option(metavar="WHO", help="Who, for the log of commits.", show_default=False)]
Principals = Annotated[
    list[str] | None,
    typer.Option(
        "--principal",
        metavar="LABEL",
        help="A label of the reader, such as group:hr; may be repeated. None: what everybody may read.",
        show_default=False,
    ),
]


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """The object that an option gives as JSON; a usage error if it is none."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is no JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter('must be a JSON object, like \'{"team": "hr"}\'', param_hint=option)
    return value
