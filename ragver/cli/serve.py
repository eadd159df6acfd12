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
    allow_unauthenticated: Annotated[
        bool,
        typer.Option(
            "--allow-unauthenticated",
            help="Listen beyond loopback though there is no API key: whoever reaches the port may do everything.",
        ),
    ] = False,
    data_dir: options.DataDirectory = None,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C.

    With no **RAGVER_DATABASE_URL**, both stores are embedded in the data directory, which this process
    then holds. Other commands find the server by that directory.

    As long as there is no API key, everybody is let in, and the server listens on loopback only; see
    **ragver keys**.
    """
    from ragver.cli import logs, server
    from ragver.settings import read_settings

    logs.configure("INFO")
    settings = read_settings(data_dir)
    given = {"host": host, "port": port, "allow_unauthenticated": allow_unauthenticated or None}
    told = {name: value for name, value in given.items() if value is not None}
    server.run(settings.model_copy(update=told), indexing=not no_indexer)
