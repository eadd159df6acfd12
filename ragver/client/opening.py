"""A client without a server: the stores in this process."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from ragver.client.client import AsyncClient
from ragver.client.errors import invalid
from ragver.client.in_process import Across
from ragver.client.retries import Retries
from ragver.client.sync.client import Client
from ragver.errors import NotInstalled

ROLE = "ragver.open"
THREAD = "ragver"


class Opening:
    """What ``ragver.open`` gives: `async with` it for an ``AsyncClient``, `with` it for a ``Client``.

    It can be entered once at a time, and again after it was left.
    """

    def __init__(
        self, data_dir: Path | None, settings: dict[str, Any], api_key: str | None, retries: Retries | None
    ) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._api_key = api_key
        self._retries = retries
        self._open: AsyncExitStack | None = None
        self._open_across: ExitStack | None = None

    def __repr__(self) -> str:
        where = "" if self._data_dir is None else repr(str(self._data_dir))
        return f"ragver.open({where})"

    async def __aenter__(self) -> AsyncClient:
        async with AsyncExitStack() as stack:
            way = await stack.enter_async_context(self._way())
            key = self._api_key or way.operator_token
            client = AsyncClient(way.url, api_key=key, retries=self._retries, transport=way.transport)
            await stack.enter_async_context(client)
            self._open = stack.pop_all()
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._open = self._open, None
        if stack is not None:
            await stack.__aexit__(kind, error, trace)

    def __enter__(self) -> Client:
        # Comes with httpx; its portal is an event loop in a thread of its own, where the stores live.
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name=THREAD))
            way = stack.enter_context(portal.wrap_async_context_manager(self._way()))
            transport = None if way.transport is None else Across(portal, way.transport)
            key = self._api_key or way.operator_token
            client = Client(way.url, api_key=key, retries=self._retries, transport=transport)
            stack.enter_context(client)
            self._open_across = stack.pop_all()
        return client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._open_across = self._open_across, None
        if stack is not None:
            stack.__exit__(kind, error, trace)

    def _way(self) -> Any:
        if self._open is not None or self._open_across is not None:
            raise invalid(f"{self!r} is open already; call ragver.open for another")
        try:
            # By name, since the base install has none of what this needs.
            local, settings = import_module("ragver.local"), import_module("ragver.settings")
        except ModuleNotFoundError as error:
            raise NotInstalled(
                f"ragver.open needs {error.name}: pip install 'ragver[embedded]', or use ragver.AsyncClient with the "
                "URL of a server"
            ) from error
        local.log_to_logging()
        return local.way_to(settings.read_settings(self._data_dir, **self._settings), ROLE)


def open(
    data_dir: str | Path | None = None,
    *,
    api_key: str | None = None,
    retries: Retries | None = None,
    **settings: Any,
) -> Opening:
    """Open a data directory: ``with ragver.open("./data") as client``, or ``async with`` for an ``AsyncClient``.

    The client speaks to the server that runs on the directory, if one does: as its operator, since it can read the
    directory, or with `api_key`. Else ledger, index and indexer live in this process for the length of the block; needs
    ``ragver[embedded]``. The client is the same either way, and so are its answers and errors.

    - `data_dir`: ``RAGVER_DATA_DIR``, or ``.ragver``, if not given. Made if it is missing.
    - `settings` go before those of the environment, named as in ``ragver.settings``; a running server has its own.
    - ragver's log goes to ``logging``, unless the application has set structlog up.

    Raises, on entering: ``DataDirInUse`` if somebody else has the directory open, this process included,
    ``NotInstalled``, ``SettingsInvalid``.
    """
    return Opening(None if data_dir is None else Path(data_dir), settings, api_key, retries)
