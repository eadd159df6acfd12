"""Requests to a Qdrant server: the connection, its version, and what is tried again."""

from __future__ import annotations

import asyncio
import math
import ssl
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ragver.errors import IndexUnavailable, IndexUnsupported, SettingsInvalid
from ragver.index.qdrant_options import Connection, Options, readable
from ragver.index.retrying import Failure, retried
from ragver.telemetry import logger

SERVER_VERSION_MIN = (1, 17)
"""The first with `update_mode`. Older ones pass over the word, and an upsert would bring the dead back."""
CONNECTIONS_MAX = 64
EXCERPT_CHARS_MAX = 300
"""How much of a refusal is quoted."""

_TOO_MANY_REQUESTS = 429
_UNAUTHORISED = (401, 403)

_GRPC_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)

T = TypeVar("T")


class QdrantServer:
    """A connection over which requests are made, and made again where that can help."""

    def __init__(self, client: AsyncQdrantClient, options: Options, *, versioned: bool = True) -> None:
        """`versioned`: there is a server with a version to check; qdrant-client's local mode has none."""
        self.client = client
        self._options = options
        self._versioned = versioned
        self._version_checked = False
        self._closed = False

    @classmethod
    def connect(cls, connection: Connection, options: Options) -> QdrantServer:
        """A connection; nothing is sent yet. Raises ``SettingsInvalid``."""
        try:
            return cls(_client(connection, options), options)
        except ValueError as error:
            raise SettingsInvalid(f"RAGVER_QDRANT_URL is no URL of a server: {error}") from error

    @property
    def keeps_payload_indexes(self) -> bool:
        """qdrant-client's local mode forgets them: it searches without."""
        return self._versioned

    async def read(self, what: str, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request that changes nothing. Raises ``IndexUnavailable``."""
        return await self._checked(what, request, self._options.timeout_s)

    async def write(self, what: str, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request that may be repeated. Raises ``IndexUnavailable``."""
        return await self._checked(what, request, self._options.write_timeout_s)

    async def check_version(self) -> None:
        """Raise ``IndexUnsupported`` if the server is too old, ``IndexUnavailable`` if it does not answer."""
        if self._versioned:
            told = await self._attempt("tell its version", self.client.info, self._options.timeout_s)
            _require_version(told.version)
        self._version_checked = True

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.client.close()

    async def _checked(self, what: str, request: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        if not self._version_checked:
            try:
                await self.check_version()
            except IndexUnsupported as error:
                raise IndexUnavailable(error.detail) from error
        return await self._attempt(what, request, timeout_s)

    async def _attempt(self, what: str, request: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        if self._closed:
            raise IndexUnavailable("the connection to the Qdrant server has been closed")
        try:
            return await retried(lambda: _once(request, timeout_s))
        except Failure as failure:
            # What comes back after an outage may have another version.
            self._version_checked = False
            raise IndexUnavailable(f"the Qdrant server, asked to {what}, {failure.trouble}") from failure


async def _once(request: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await request()
    except TimeoutError:
        raise Failure(f"did not answer within {timeout_s:g} s", passing=True) from None
    # ValueError and AssertionError: what is not JSON, or lacks what the client looks for.
    except (ApiException, QdrantException, grpc.RpcError, ValueError, AssertionError) as error:
        raise _failure(error) from error


def _client(connection: Connection, options: Options) -> AsyncQdrantClient:
    encrypted = connection.url.startswith("https://")
    if connection.api_key is not None and not encrypted:
        logger.warning("qdrant_key_unencrypted", detail="RAGVER_QDRANT_API_KEY is sent in the clear: use https")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return AsyncQdrantClient(
            url=connection.url,
            api_key=connection.api_key,
            prefer_grpc=connection.grpc,
            grpc_port=connection.grpc_port,
            grpc_options=_grpc_certificates(connection.ca_file),
            timeout=math.ceil(max(options.timeout_s, options.write_timeout_s)),
            check_compatibility=False,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX),
            **_rest_certificates(connection.ca_file),
        )


def _grpc_certificates(ca_file: Path | None) -> dict[str, Any] | None:
    return None if ca_file is None else {"root_certificates": readable(ca_file).read_bytes()}


def _rest_certificates(ca_file: Path | None) -> dict[str, Any]:
    if ca_file is None:
        return {}
    try:
        return {"verify": ssl.create_default_context(cafile=readable(ca_file))}
    except ssl.SSLError as error:
        raise SettingsInvalid(f"RAGVER_QDRANT_CA_FILE {ca_file} holds no certificate: {error}") from error


def _require_version(told: str) -> None:
    needed = ".".join(map(str, SERVER_VERSION_MIN))
    try:
        version = tuple(int(part) for part in told.split(".")[:2])
    except ValueError:
        raise IndexUnsupported(f"RAGVER_QDRANT_URL is of a server that says its version is {told!r}") from None
    if version < SERVER_VERSION_MIN:
        raise IndexUnsupported(f"the Qdrant server has version {told}; upgrade it to {needed} or newer")


def _failure(error: Exception) -> Failure:
    """What went wrong, in words, and whether another attempt can help."""
    match error:
        case ResourceExhaustedResponse():
            return Failure("is asked for too much", passing=True, wait_s=error.retry_after_s)
        case UnexpectedResponse():
            return _refusal(error)
        case ResponseHandlingException():
            return Failure(f"cannot be reached ({type(error.source).__name__}: {error.source})", passing=True)
        case grpc.RpcError():
            return _grpc_failure(error)
        case QdrantException():
            # A 429 with a Retry-After that the client does not understand.
            return Failure(f"is asked for too much: {error}", passing=True)
        case _:
            return Failure(f"refused: {error}", passing=False)


def _refusal(error: UnexpectedResponse) -> Failure:
    status = error.status_code or 0
    if status in _UNAUTHORISED:
        # Such answers like to quote the key.
        return Failure(f"answered {status}: check RAGVER_QDRANT_API_KEY", passing=False)
    text = " ".join(error.content.decode(errors="replace").split())[:EXCERPT_CHARS_MAX]
    return Failure(f"answered {status}: {text}", passing=status == _TOO_MANY_REQUESTS or status >= 500)


def _grpc_failure(error: Any) -> Failure:
    if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Failure(f"answered {error.code().name}: check RAGVER_QDRANT_API_KEY", passing=False)
    details = (error.details() or "")[:EXCERPT_CHARS_MAX]
    return Failure(f"answered {error.code().name}: {details}", passing=error.code() in _GRPC_PASSING)
