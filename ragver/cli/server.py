"""Runs the HTTP application under uvicorn, from the claim of the data directory to the orderly stop."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragver.api.app import create_app
from ragver.bootstrap import Services, open_services
from ragver.errors import ServerUnguarded, SettingsInvalid
from ragver.settings import Settings
from ragver.telemetry import logger

STOP_S_MAX = 10
"""How long requests under way may take to end once the server has been told to stop."""
BACKLOG = 2048
FEEDS = ("/commits", "/recalls")
"""Ends of the paths whose answers may stay open."""
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def run(settings: Settings, *, indexing: bool) -> None:
    """Serve until a signal says stop; raises what keeps the server from starting."""
    loop_factory = uvicorn.Config("", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(settings, indexing))


async def _serve(settings: Settings, indexing: bool) -> None:
    stop = _Stop()
    with stop.listening(), closing(_bound(settings.host, settings.port)) as listener:
        async with open_services(
            settings, role="ragver serve", indexing=indexing, delivering=settings.webhooks_deliver
        ) as services:
            access = await _access(services, listener)
            app = create_app(lambda: nullcontext(services), settings.request_bytes_max)
            url = _url(settings.host, listener.getsockname()[1])

            def started() -> None:
                services.publish(url)
                directory = str(settings.data_dir.resolve())
                logger.info("serving", url=url, data_dir=directory, indexing=indexing, access=access)

            server = _Server(_until_stopped(app, stop), started)
            stop.server = server
            await server.serve(sockets=[listener])
            logger.info("stopping")
    logger.info("stopped")


async def _access(services: Services, listener: socket.socket) -> str:
    """In words, who will be let in. Raises ``ServerUnguarded`` for a port that is open to everybody out there."""
    if await services.keys.guarded():
        return "with an API key"
    address = listener.getsockname()[0]
    # An IPv6 address may carry the name of its interface.
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return "open to every program on this machine; make a key with `ragver keys create` to close it"
    if not services.settings.allow_unauthenticated:
        raise ServerUnguarded(
            f"there is no API key, so whoever reaches {address} could do everything: make one with "
            "`ragver keys create NAME --role admin`, listen on 127.0.0.1, or say --allow-unauthenticated"
        )
    logger.warning("open_to_everybody", address=address)
    return "open to everybody who reaches it"


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has its address but does not listen yet, so that nobody waits for stores to open."""
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise SettingsInvalid(
            f"cannot listen on {host}, port {port} ({error.strerror}): choose others with --host and --port"
        ) from error
    return bound


def _url(host: str, port: int) -> str:
    """Where this machine finds the server."""
    name = ANY_ADDRESS.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


class _Server(uvicorn.Server):
    """Says when it accepts connections, and leaves the signals alone: uvicorn would end by raising them again."""

    def __init__(self, app: ASGIApp, started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=STOP_S_MAX,
            )
        )
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stop:
    """What SIGTERM and SIGINT do: end the server, or the attempt to start it."""

    def __init__(self) -> None:
        self.server: _Server | None = None
        self._starting: asyncio.Task[Any] | None = None

    @property
    def asked(self) -> bool:
        return self.server is not None and self.server.should_exit

    @contextmanager
    def listening(self) -> Iterator[None]:
        self._starting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)
        try:
            with suppress(asyncio.CancelledError):
                yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _ask(self) -> None:
        if self.server is not None:
            self.server.force_exit = self.server.should_exit
            self.server.should_exit = True
        elif self._starting is not None:
            self._starting.cancel()


def _until_stopped(app: ASGIApp, stop: _Stop) -> ASGIApp:
    """The application, whose feeds see their client gone once the server stops; else they would hold it up."""

    async def hanging_up(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(FEEDS):
            await app(scope, receive, send)
            return
        received = False

        async def receive_until_stopped() -> Message:
            nonlocal received
            if received and stop.asked:
                return {"type": "http.disconnect"}
            message = await receive()
            received = not message.get("more_body", False)
            return message

        await app(scope, receive_until_stopped, send)

    return hanging_up
