"""The log command."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from ragver.cli import options
from ragver.cli.connection import Connection, Place, run
from ragver.cli.output import Column, show_fields, show_json, show_json_line, show_rows
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
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash chain of the whole log instead.")] = False,
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="EPOCH:HASH",
            help="With --verify: a head that was written down, which must still be there.",
            show_default=False,
        ),
    ] = None,
    corpus: options.Corpus = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Show commits, oldest first: when, who, what and why. With --verify, exit status 1 if one was changed."""
    place = Place(url, data_dir, "log")
    if verify:
        _verify(place, corpus, anchor, as_json)
        return
    if anchor is not None:
        raise typer.BadParameter("goes with --verify", param_hint="--anchor")

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

    run(place, shown)


def _verify(place: Place, corpus: str | None, anchor: str | None, as_json: bool) -> None:
    known = None if anchor is None else _anchor(anchor)

    async def verified(connection: Connection) -> wire.LogVerification:
        return await connection.client.verify_log(await connection.corpus(corpus), anchor=known)

    found = run(place, verified)
    if as_json:
        show_json(found)
    else:
        show_fields(_verification(found))
    if not found.intact:
        raise typer.Exit(1)


def _anchor(text: str) -> tuple[int, str]:
    epoch, _, digest = text.partition(":")
    if not (epoch.isascii() and epoch.isdigit() and digest):
        raise typer.BadParameter(
            "takes EPOCH:HASH, the head and its hash of an earlier --verify", param_hint="--anchor"
        )
    return int(epoch), digest


def _verification(found: wire.LogVerification) -> dict[str, object]:
    fields: dict[str, object] = {
        "log": "intact" if found.intact else "broken",
        "verified": f"{found.verified} of {found.head} commits",
    }
    if found.broken is not None:
        fields |= {"first broken": f"epoch {found.broken.epoch}, {found.broken.kind}: {found.broken.detail}"}
    else:
        fields |= {"anchor": f"{found.head}:{found.head_hash}"}
    erasures = Counter(redaction.erasure_id for redaction in found.redacted)
    fields |= {f"by erasure {erasure_id}": f"{count} redacted" for erasure_id, count in erasures.items()}
    return fields


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
