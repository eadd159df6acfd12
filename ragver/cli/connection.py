"""Finding whom to talk to: a server by its URL, the one on the data directory, or the stores in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ragver.cli import logs
from ragver.errors import CorpusNotFound, InvalidRequest

if TYPE_CHECKING:
    from ragver.client import AsyncClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """What the user said about where to go, and the command's name for whoever finds the directory taken."""

    url: str | None
    data_dir: Path | None
    command: str


presented: ContextVar[str | None] = ContextVar("presented", default=None)
"""The API key that the user gave, if any."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An open way to the API."""

    client: AsyncClient
    described: str
    """Where it leads, in words."""
    in_process: bool
    """The stores are open here and nobody else can write to them meanwhile."""

    async def corpus(self, wanted: str | None) -> str:
        """The corpus to use: the wanted one, or the only one there is."""
        if wanted is not None:
            return wanted
        names = [corpus.name for corpus in await self.client.corpora()]
        if not names:
            raise CorpusNotFound("there is no corpus yet; make one with `ragver corpus create NAME`")
        if len(names) > 1:
            raise InvalidRequest(f"there are several corpora, say which with --corpus: {', '.join(names)}")
        return names[0]


def run(place: Place, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do some work over a connection that is open just for it."""

    async def connected() -> T:
        async with connect(place) as connection:
            return await work(connection)

    logs.configure("ERROR")
    return asyncio.run(connected())


@asynccontextmanager
async def connect(place: Place) -> AsyncIterator[Connection]:
    """A connection to the server that was named or found, else to stores that are opened here for its duration.

    Raises ``DataDirInUse`` if a process that is no server holds the data directory.
    """
    from ragver.client import AsyncClient

    if place.url is not None:
        async with AsyncClient(_normalised(place.url), api_key=presented.get()) as client:
            yield Connection(client, place.url, in_process=False)
        return
    from ragver.local import way_to
    from ragver.settings import read_settings

    async with (
        way_to(read_settings(place.data_dir), f"ragver {place.command}") as way,
        AsyncClient(way.url, api_key=presented.get() or way.operator_token, transport=way.transport) as client,
    ):
        yield Connection(client, way.described, in_process=way.transport is not None)


def _normalised(url: str) -> str:
    if "://" not in url:
        return f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"--url takes an HTTP address such as http://127.0.0.1:8000, not {url!r}")
    return url
