"""The keys commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from ragver.cli import logs, options
from ragver.cli.connection import Place, connect
from ragver.cli.output import Column, on_terminal, show_fields, show_json, show_line, show_rows
from ragver.errors import KeyNotFound
from ragver.types import WILDCARD, Role

if TYPE_CHECKING:
    from ragver import wire

app = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke API keys. From the first one on, a server asks everybody for one.",
)

T = TypeVar("T")

COLUMNS = [
    Column("id"),
    Column("name", narrow="wrap"),
    Column("role"),
    Column("corpora", narrow="wrap"),
    Column("principals", narrow="wrap"),
    Column("state"),
    Column("last use"),
    Column("comment", narrow="cut"),
]


class KeyBook(Protocol):
    """The keys, over HTTP or straight on the ledger."""

    async def create_key(self, request: wire.KeyCreate) -> wire.KeyCreated:
        """Make a key."""

    async def keys(self) -> list[wire.ApiKey]:
        """Every key there has been."""

    async def revoke_key(self, key_id: str) -> wire.ApiKey:
        """End a key."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the log of commits calls it.", show_default=False)],
    role: Annotated[
        Role,
        typer.Option(
            metavar="ROLE",
            help="reader: retrieve, validate, read. writer: commit too. admin: everything.",
            show_default=False,
        ),
    ],
    corpora: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="CORPUS", help="Only for this corpus; may be repeated.", show_default=False),
    ] = None,
    principals: Annotated[
        list[str] | None,
        typer.Option(
            "--principal",
            metavar="LABEL",
            help="All its reads have this label and no other; may be repeated. * alone: what everybody may read.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="N", help="Requests a second, in each server process.", show_default=False),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", metavar="N", help="How long it is good.", show_default=False)
    ] = None,
    comment: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Whose it is, what for.", show_default=False)
    ] = None,
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a key and print its secret, which nobody can show again.

    Without a server it goes straight to the ledger, at **RAGVER_DATABASE_URL** or in the data directory: that is
    how the first key is made.
    """
    from ragver import wire

    fields = {
        "name": name,
        "role": role,
        "corpora": corpora or None,
        "principals": principals or None,
        "rate_per_s": rate,
        "expires_at": None if days is None else datetime.now(UTC) + timedelta(days=days),
        "comment": comment,
    }
    request = wire.KeyCreate.model_validate({field: value for field, value in fields.items() if value is not None})
    made = _run(Place(url, data_dir, "keys create"), lambda book: book.create_key(request))
    if as_json:
        show_json(made)
        return
    if on_terminal():
        show_line(f"{made.name} ({made.role}). Keep this secret; it is not shown again:\n")
    show_line(made.secret)


@app.command("list")
def list_all(url: options.Url = None, data_dir: options.DataDirectory = None, as_json: options.AsJson = False) -> None:
    """List the keys there have been, with their last use to the minute."""
    listed = _run(Place(url, data_dir, "keys list"), lambda book: book.keys())
    if as_json:
        show_json({"keys": listed})
    elif not listed and on_terminal():
        show_line("There is no key yet; make one with `ragver keys create NAME --role admin`.")
    else:
        show_rows(COLUMNS, map(_row, listed))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id or name.", show_default=False)],
    url: options.Url = None,
    data_dir: options.DataDirectory = None,
    as_json: options.AsJson = False,
) -> None:
    """End a key for good. Every server process refuses it within a second."""

    async def revoked(book: KeyBook) -> wire.ApiKey:
        named = [one for one in await book.keys() if one.id == key or (one.name == key and one.revoked_at is None)]
        if not named:
            raise KeyNotFound(f"there is no key {key!r}; `ragver keys list` shows those there are")
        return await book.revoke_key(named[0].id)

    ended = _run(Place(url, data_dir, "keys revoke"), revoked)
    if as_json:
        show_json(ended)
    else:
        show_fields({"revoked": ended.id, "name": ended.name, "at": _time(ended.revoked_at)})


def _run(place: Place, work: Callable[[KeyBook], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with _book(place) as book:
            return await work(book)

    logs.configure("ERROR")
    return asyncio.run(opened())


@asynccontextmanager
async def _book(place: Place) -> AsyncIterator[KeyBook]:
    """A server's keys, or, where none was named or found, the ledger's own: no index has to be there for that."""
    from ragver.bootstrap import open_keys
    from ragver.local import running
    from ragver.settings import read_settings

    settings = read_settings(place.data_dir)
    if place.url is None and running(settings) is None:
        async with open_keys(settings, role=f"ragver {place.command}") as keys:
            yield keys
        return
    async with connect(place) as connection:
        yield connection.client


def _row(key: wire.ApiKey) -> tuple[object, ...]:
    return (
        key.id,
        key.name,
        key.role,
        "all" if key.corpora is None else " ".join(key.corpora),
        "any" if key.principals is None else " ".join(key.principals) or WILDCARD,
        _state(key),
        _time(key.last_used_at) or "never",
        key.comment,
    )


def _state(key: wire.ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "good"
    return "expired" if key.expires_at <= datetime.now(UTC) else f"until {key.expires_at:%Y-%m-%d}"


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
