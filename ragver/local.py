"""Finding whom to talk to on this machine: the server on the data directory, or the stores in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from ragver.api.app import create_app
from ragver.bootstrap import open_services
from ragver.client.in_process import InProcess
from ragver.embedded.datadir import DataDir
from ragver.errors import DataDirInUse
from ragver.settings import Settings

IN_PROCESS_URL = "http://in-process"


@dataclass(frozen=True, slots=True)
class Way:
    """How a client gets to the API."""

    url: str
    described: str
    """Where it leads, in words."""
    transport: InProcess | None = None
    """None: over the network. Else the stores are open here, and nobody else can write to them meanwhile."""
    operator_token: str | None = field(default=None, repr=False)
    """What makes whoever can read the server's data directory its operator."""


@asynccontextmanager
async def way_to(settings: Settings, role: str) -> AsyncIterator[Way]:
    """The way to the server that runs on the data directory, else to the stores, opened here for its duration.

    Raises ``DataDirInUse`` if a process that is no server holds the directory, this one included.
    """
    server = running(settings)
    if server is not None:
        yield server
        return
    app = create_app(lambda: open_services(settings, role=role), settings.request_bytes_max, guarded=False)
    async with app.router.lifespan_context(app):
        described = f"stores embedded in {settings.data_dir.resolve()}"
        yield Way(IN_PROCESS_URL, described, InProcess(app))


def log_to_logging() -> None:
    """Unless the application has set structlog up, send ragver's log to ``logging``; else it would be on stdout."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def running(settings: Settings) -> Way | None:
    """The way to the server on the data directory; None if nobody holds the directory."""
    if settings.database_url is not None and settings.qdrant_url is not None:
        return None
    directory = DataDir(settings.data_dir)
    holder = directory.holder()
    if holder is None:
        return None
    if holder.url is None:
        raise DataDirInUse(
            f"{directory.path} is held by {holder}, which serves no URL: wait for it, stop it, or name another "
            "directory (--data-dir, RAGVER_DATA_DIR)"
        )
    described = f"{holder.url}, process {holder.pid}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC"
    return Way(holder.url, described, operator_token=holder.operator_token)
