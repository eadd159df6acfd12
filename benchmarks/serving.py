"""Services that are open already, served over HTTP by this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn

from ragver.api.app import create_app
from ragver.bootstrap import Services

STARTUP_S_MAX = 10.0


@asynccontextmanager
async def served(services: Services, *, guarded: bool = True) -> AsyncIterator[int]:
    """The port that answers for these services, until the end of the block; `guarded` as in ``create_app``."""

    @asynccontextmanager
    async def already_open() -> AsyncIterator[Services]:
        yield services

    port = free_port()
    app = create_app(already_open, services.settings.request_bytes_max, guarded=guarded)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    try:
        await listening(port)
        yield port
    finally:
        server.should_exit = True
        await serving


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def listening(port: int) -> None:
    """Return once something answers there."""
    async with asyncio.timeout(STARTUP_S_MAX):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
