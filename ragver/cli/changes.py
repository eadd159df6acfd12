"""The commands that change documents: put, delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, on_terminal, show_json, show_line, show_rows

if TYPE_CHECKING:
    from ragver import wire

Fence = Annotated[bool, typer.Option("--fence", help="Return only when no verdict from before can still be acted on.")]


def put(
    key: Annotated[str, typer.Argument(help="The document's key, such as policies/leave.md.")],
    file: Annotated[str, typer.Argument(help="A file with its text; - is standard input.")] = "-",
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="What to call it.", show_default=False)] = None,
    uri: Annotated[
        str | None, typer.Option(metavar="URI", help="Where readers find the original.", show_default=False)
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help='An object, such as \'{"team": "hr"}\'.', show_default=False)
    ] = None,
    acl: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Who may read it, such as group:hr; may be repeated. None: everybody.",
            show_default=False,
        ),
    ] = None,
    if_version: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Only if this is its version; 0: only if there is none.", show_default=False
        ),
    ] = None,
    reason: options.Reason = None,
    actor: options.Actor = None,
    fence: Fence = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Put a document: its whole new state. What is not given is reset, its access list included."""
    from ragver import wire

    fields: dict[str, Any] = {"title": title, "uri": uri, "if_version": if_version, "acl": acl or None}
    given = {name: value for name, value in fields.items() if value is not None}
    operation = wire.Put(
        op="put", key=key, text=_text(file), metadata=options.json_object(metadata, "--metadata"), **given
    )
    _commit(Place(url, data_dir, "put"), corpus, [operation], reason, actor, fence, as_json)


def delete(
    keys: Annotated[list[str], typer.Argument(metavar="KEY…", help="Documents; all of them in one commit.")],
    fence: Fence = False,
    reason: options.Reason = None,
    actor: options.Actor = None,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete documents. What was retrieved from them can no longer be cited."""
    from ragver import wire

    operations: list[wire.Operation] = [wire.Delete(op="delete", key=key) for key in keys]
    _commit(Place(url, data_dir, "delete"), corpus, operations, reason, actor, fence, as_json)


def _text(file: str) -> str:
    from pathlib import Path

    from ragver.errors import InvalidText

    # Bytes, since reading as text would change the line ends.
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        name = "standard input" if file == "-" else file
        raise InvalidText(f"{name} is no UTF-8 text (byte {error.start}); convert it") from None


def _commit(
    place: Place,
    corpus: str | None,
    operations: list[wire.Operation],
    reason: str | None,
    actor: str | None,
    fence: bool,
    as_json: bool,
) -> None:
    async def committed(connection: Connection) -> wire.CommitResult:
        name = await connection.corpus(corpus)
        return await connection.client.commit(name, operations, reason=reason, actor=actor, fence=fence)

    result = run(place, committed)
    if as_json:
        show_json(result)
    else:
        _show(result)


def _show(result: wire.CommitResult) -> None:
    columns = [
        Column("document", narrow="wrap"),
        Column("version", "right"),
        Column("change"),
        Column("chunks added", "right"),
        Column("kept", "right"),
        Column("removed", "right"),
    ]
    rows = [
        (change.key, change.version, change.status, change.chunks_added, change.chunks_kept, change.chunks_removed)
        for change in result.documents
    ]
    if not on_terminal():
        show_rows(columns, [(result.epoch, *row) for row in rows])
        return
    show_line(f"epoch {result.epoch}{', fenced' if result.fenced else ''}")
    show_rows(columns, rows)
