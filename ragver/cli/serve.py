"""The server command."""

from __future__ import annotations

from typing import Annotated

import typer

from ragver.cli import options


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Listen here; 127.0.0.1 if not given.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", help="8000 if not given; 0 takes any free one.", show_default=False, min=0, max=65535
        ),
    ] = None,
    no_indexer: Annotated[
        bool, typer.Option("--no-indexer", help="Leave the index as it is; strong reads stay right without it.")
    ] = False,
    data_dir: options.DataDirectory = None,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C.

    With no **RAGVER_DATABASE_URL**, both stores are embedded in the data directory, which this process
    then holds. Other commands find the server by that directory.
    """
    from ragver.cli import logs, server
    from ragver.cli.connection import read_settings

    logs.configure("INFO")
    settings = read_settings(data_dir)
    told = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    server.run(settings.model_copy(update=told), indexing=not no_indexer)
