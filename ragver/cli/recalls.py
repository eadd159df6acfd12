"""The recalls command."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, on_terminal, show_json, show_json_line, show_line, show_rows
from ragver.errors import InvalidRequest
from ragver.types import Scope

if TYPE_CHECKING:
    from ragver import wire

COLUMNS = [
    Column("epoch", "right"),
    Column("time"),
    Column("answer", narrow="wrap"),
    Column("lost", narrow="wrap"),
    Column("actor", narrow="cut"),
    Column("reason", narrow="cut"),
]


def recalls(
    since: Annotated[int, typer.Option(metavar="EPOCH", min=0, help="What commits after this one recalled.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 100,
    scope: Annotated[Scope, typer.Option(help="Answers that cite what died, or that rest on it at all.")] = Scope.CITED,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each recall as it comes.")] = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Show delivered answers that rest on what has died since: by which commit and why, oldest first."""

    async def shown(connection: Connection) -> None:
        name = await connection.corpus(corpus)
        if follow:
            await _follow(connection, name, since, scope, as_json)
            return
        page = await connection.client.recalls(name, since_epoch=since, limit=limit, scope=scope)
        if as_json:
            show_json(page)
        elif page.recalls or not on_terminal():
            show_rows(COLUMNS, map(_row, page.recalls))
        else:
            show_line(f"No delivered answer has lost anything after epoch {since}.")

    run(Place(url, data_dir, "recalls"), shown)


async def _follow(connection: Connection, corpus: str, since: int, scope: Scope, as_json: bool) -> None:
    if connection.in_process:
        raise InvalidRequest("there is no server here whose recalls could be followed; start one with `ragver serve`")
    cursor = str(since)
    # The feed ends when the server stops or the corpus goes; asked again, the server says which, or is not there.
    while True:
        async for recall in connection.client.follow_recalls(corpus, cursor=cursor, scope=scope):
            cursor = recall.recall_id
            if as_json:
                show_json_line(recall)
            else:
                show_rows(COLUMNS, [_row(recall)], titles=False)


def _row(recall: wire.Recall) -> tuple[object, ...]:
    chunks = sorted(recall.chunks, key=lambda chunk: (chunk.cause, chunk.document_key))
    causes = {
        cause.value: list(dict.fromkeys(chunk.document_key for chunk in of_cause))
        for cause, of_cause in groupby(chunks, key=lambda chunk: chunk.cause)
    }
    lost = "; ".join(f"{', '.join(keys)} {cause}" for cause, keys in causes.items())
    return recall.epoch, f"{recall.committed_at:%Y-%m-%d %H:%M:%S}", recall.answer_id, lost, recall.actor, recall.reason
