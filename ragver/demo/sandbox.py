"""Stores of the demo's own: fresh, in a temporary directory, gone at the end however it comes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from ragver.api.app import create_app
from ragver.bootstrap import Services, open_services
from ragver.client import AsyncClient
from ragver.client.in_process import InProcess
from ragver.clock import SystemClock
from ragver.indexer import Indexer
from ragver.local import IN_PROCESS_URL
from ragver.settings import Settings

PREFIX: Final = "ragver-demo-"
"""What the temporary directory's name begins with."""
INDEXER_POLL_S = 0.02
CATCH_UP_S_MAX = 30.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _OwnSettings(Settings):
    """Settings that come from nowhere but here: the user's own stores are none of the demo's business."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Open stores, and a client that speaks to the whole HTTP application over them, in this process."""

    services: Services
    client: AsyncClient
    directory: Path

    @asynccontextmanager
    async def indexing(self) -> AsyncIterator[None]:
        """Have the indexer run for the length of the block."""
        services = self.services
        indexer = Indexer(
            services.database, services.index, services.builder, SystemClock(), INDEXER_POLL_S, services.metrics
        )
        running = asyncio.create_task(indexer.run(), name="indexer")
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def caught_up(self, corpus: str) -> None:
        """Wait until the indexer has brought the index up to the head."""
        async with asyncio.timeout(CATCH_UP_S_MAX):
            while True:
                found = await self.client.corpus(corpus)
                if found.applied_epoch == found.head:
                    return
                await asyncio.sleep(INDEXER_POLL_S)


@asynccontextmanager
async def opened() -> AsyncIterator[Sandbox]:
    """Empty stores for the length of the block; their processes and files are gone after it."""
    with TemporaryDirectory(prefix=PREFIX) as name:
        settings = _OwnSettings(data_dir=Path(name) / "data")
        async with open_services(settings, role="ragver demo", indexing=False) as services:
            app = create_app(lambda: nullcontext(services), settings.request_bytes_max, guarded=False)
            async with (
                app.router.lifespan_context(app),
                AsyncClient(IN_PROCESS_URL, transport=InProcess(app)) as client,
            ):
                yield Sandbox(services, client, Path(name))


class Interruption:
    """What Ctrl-C does: it ends the work, never the opening and the closing of the stores around it.

    A PostgreSQL that is just being started cannot be told to go; so what comes early waits until it is there.
    """

    def __init__(self) -> None:
        self.asked = False
        self._work: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals for the length of the block."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self._ask)
        try:
            yield
        finally:
            for number in STOPPING:
                loop.remove_signal_handler(number)

    async def cuts_short(self, work: Coroutine[Any, Any, None]) -> None:
        """Await the work to its end, or to the signal."""
        self._work = asyncio.create_task(work)
        if self.asked:
            self._work.cancel()
        try:
            await self._work
        except asyncio.CancelledError:
            if not self.asked:
                raise

    def _ask(self) -> None:
        if self._work is not None and not self.asked:
            self._work.cancel()
        self.asked = True
