"""The status command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.corpora import COLUMNS, row
from ragver.cli.output import on_terminal, show_fields, show_json, show_line, show_rows

if TYPE_CHECKING:
    from ragver import wire


def status(url: options.Url = None, data_dir: options.DataDirectory = None, as_json: options.AsJson = False) -> None:
    """Show where the stores are, whether they answer, and how far the index is. Exit status 1: not ready."""

    async def asked(connection: Connection) -> tuple[str, wire.Readiness, list[wire.Corpus]]:
        ready = await connection.client.ready()
        corpora = await connection.client.corpora() if ready.status == "ok" else []
        return connection.described, ready, corpora

    described, ready, corpora = run(Place(url, data_dir, "status"), asked)
    if as_json:
        show_json({"server": described, "ready": ready, "corpora": corpora})
    else:
        show_fields({"server": described, "status": ready.status, "ledger": ready.ledger, "index": ready.index})
        if corpora:
            if on_terminal():
                show_line("")
            show_rows(COLUMNS, map(row, corpora))
    if ready.status != "ok":
        raise typer.Exit(1)
