"""Finding whom to talk to: a server by its URL, the one on the data directory, or the stores in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ragver.cli import logs
from ragver.errors import CorpusNotFound, DataDirInUse, InvalidRequest, SettingsInvalid

if TYPE_CHECKING:
    from ragver.client import AsyncClient
    from ragver.settings import Settings

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
class _Server:
    """A server, in words too, and what makes whoever can read its data directory its operator."""

    url: str
    described: str
    operator_token: str | None = field(default=None, repr=False)


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

    settings = read_settings(place.data_dir)
    server = found(settings) if place.url is None else _Server(_normalised(place.url), place.url)
    if server is None:
        async with _in_process(settings, place.command) as connection:
            yield connection
        return
    async with AsyncClient(server.url, api_key=presented.get() or server.operator_token) as client:
        yield Connection(client, server.described, in_process=False)


def read_settings(data_dir: Path | None) -> Settings:
    """Settings from the environment; what was said on the command line goes before it."""
    from pydantic import ValidationError

    from ragver.settings import Settings

    try:
        return Settings() if data_dir is None else Settings(data_dir=data_dir)
    except ValidationError as error:
        found = "; ".join(f"RAGVER_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors())
        raise SettingsInvalid(found) from error


def _normalised(url: str) -> str:
    if "://" not in url:
        return f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"--url takes an HTTP address such as http://127.0.0.1:8000, not {url!r}")
    return url


def found(settings: Settings) -> _Server | None:
    """The server on the data directory; None if nobody holds the directory."""
    from ragver.embedded.datadir import DataDir

    if settings.database_url is not None and settings.qdrant_url is not None:
        return None
    directory = DataDir(settings.data_dir)
    holder = directory.holder()
    if holder is None:
        return None
    if holder.url is None:
        raise DataDirInUse(
            f"{directory.path} is held by {holder}, which serves no URL: wait for it, stop it, or name another "
            "directory with --data-dir"
        )
    described = f"{holder.url}, process {holder.pid}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC"
    return _Server(holder.url, described, holder.operator_token)


@asynccontextmanager
async def _in_process(settings: Settings, command: str) -> AsyncIterator[Connection]:
    import httpx

    from ragver.api.app import create_app
    from ragver.bootstrap import open_services
    from ragver.client import AsyncClient

    app = create_app(
        lambda: open_services(settings, role=f"ragver {command}"), settings.request_bytes_max, guarded=False
    )
    # Errors of the application come back as answers, like those of a server.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), AsyncClient("http://in-process", transport=transport) as client:
        yield Connection(client, f"stores embedded in {settings.data_dir.resolve()}", in_process=True)
