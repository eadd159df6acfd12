"""The log command."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, show_json, show_json_line, show_rows
from ragver.errors import InvalidRequest

if TYPE_CHECKING:
    from ragver import wire

COLUMNS = [
    Column("epoch", "right"),
    Column("time"),
    Column("actor", narrow="cut"),
    Column("documents", narrow="wrap"),
    Column("reason", narrow="cut"),
]


def log(
    since: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCH", min=0, help="The commits after this one; the newest if not given.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each commit as it comes.")] = False,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Show commits, oldest first: when, who, what and why."""

    async def shown(connection: Connection) -> None:
        name = await connection.corpus(corpus)
        after = max(0, (await connection.client.corpus(name)).head - limit) if since is None else since
        if follow:
            await _follow(connection, name, after, as_json)
            return
        commits = await connection.client.commits(name, since=after, limit=limit)
        if as_json:
            show_json({"commits": commits})
        else:
            show_rows(COLUMNS, map(_row, commits))

    run(Place(url, data_dir, "log"), shown)


async def _follow(connection: Connection, corpus: str, since: int, as_json: bool) -> None:
    if connection.in_process:
        raise InvalidRequest("there is no server here whose commits could be followed; start one with `ragver serve`")
    # The feed ends when the server stops or the corpus goes; asked again, the server says which, or is not there.
    while True:
        async for entry in connection.client.follow(corpus, since=since):
            since = entry.epoch
            if as_json:
                show_json_line(entry)
            else:
                show_rows(COLUMNS, [_row(entry)], titles=False)


def _row(entry: wire.CommitEntry) -> tuple[object, ...]:
    counts = Counter(change.status.value for change in entry.documents)
    what = ", ".join(f"{count} {status}" for status, count in counts.items())
    return entry.epoch, f"{entry.committed_at:%Y-%m-%d %H:%M:%S}", entry.actor, what, entry.reason
