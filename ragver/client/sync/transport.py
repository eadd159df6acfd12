# Derived from ragver/client/transport.py by `python -m ragver.client.derive`: change that one, not this.
"""How a call reaches the server and comes back: one attempt, and the patience around it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import BaseModel

from ragver.client.bodies import authorization, server_url
from ragver.client.errors import ApiError, ServerUnreachable, invalid, refusal, unreachable
from ragver.client.retries import Retries
from ragver.client.verdict import ASKED

CONNECT_S_MAX = 5.0
ANSWER_S_MAX = 120.0
"""Covers a fenced commit, which waits up to a minute on purpose."""
FEED_SILENCE_S_MAX = 60.0
"""The server sends a heartbeat at least every 15 seconds."""
CONNECTIONS_MAX = 100
IDLE_S_MAX = 3.0
"""Less than the 5 seconds after which the server closes an idle connection: a request must not meet that."""
LIMITS = httpx.Limits(
    max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=IDLE_S_MAX
)
ATTEMPT_S_MIN = 0.01
"""What an attempt gets that begins as the deadline comes."""

Parameters = Mapping[str, str | int | bool | None]


class Transport:
    """Connections to one server, and what they carry. Safe to use from many threads at once."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        retries: Retries | None = None,
        answer_s_max: float = ANSWER_S_MAX,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retries = retries or Retries()
        self._answer_s_max = answer_s_max
        self._http = httpx.Client(
            base_url=server_url(url),
            headers=authorization(api_key),
            transport=transport,
            limits=LIMITS,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r}{', closed' * self._http.is_closed})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        parameters: Parameters | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """The server's answer to a request, which is made again where that can help and do no harm.

        `repeatable`: the effect of twice is that of once. So are GETs, and whatever has an idempotency key.
        Raises ``ApiError``.
        """
        sent: dict[str, Any] = {"headers": dict(headers or {})}
        if body is not None:
            sent["content"] = body.model_dump_json(exclude_unset=True)
            sent["headers"]["Content-Type"] = "application/json"
        if parameters is not None:
            sent["params"] = {name: value for name, value in parameters.items() if value is not None}
        repeatable = repeatable or method == "GET" or "Idempotency-Key" in sent["headers"]
        return self._persist(method, path, repeatable, sent)

    def _persist(self, method: str, path: str, repeatable: bool, sent: dict[str, Any]) -> httpx.Response:
        deadline = time.monotonic() + self._answer_s_max
        attempts = 0
        while True:
            attempts += 1
            try:
                response = self._attempt(method, path, deadline - time.monotonic(), **sent)
            except ServerUnreachable as error:
                failure: ApiError = error
            else:
                if response.is_success:
                    return response
                failure = refusal(response)
            if not (failure.retryable and (repeatable or failure.undone)):
                raise failure
            wait_s = self._retries.wait_s(attempts, deadline - time.monotonic(), failure.retry_after_s)
            if wait_s is None:
                raise failure
            time.sleep(wait_s)

    def _attempt(self, method: str, path: str, left_s: float | None = None, **sent: Any) -> httpx.Response:
        left_s = self._answer_s_max if left_s is None else max(left_s, ATTEMPT_S_MIN)
        timeout = httpx.Timeout(left_s, connect=min(left_s, CONNECT_S_MAX))
        with self._reaching(path):
            asked_s = time.monotonic()
            response = self._http.request(method, path, timeout=timeout, **sent)
        response.extensions[ASKED] = asked_s
        return response

    @contextmanager
    def _streamed(self, path: str, parameters: Parameters) -> Iterator[httpx.Response]:
        """An answer whose events are read while it still comes. Raises ``ApiError``; nothing is repeated."""
        timeout = httpx.Timeout(FEED_SILENCE_S_MAX, connect=CONNECT_S_MAX)
        given = {name: value for name, value in parameters.items() if value is not None}
        with self._reaching(path):
            with self._http.stream(
                "GET", path, params=given, headers={"Accept": "text/event-stream"}, timeout=timeout
            ) as response:
                if response.is_error:
                    response.read()
                    raise refusal(response)
                yield response

    @contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        if self._http.is_closed:
            raise invalid(f"{self!r} cannot be used any more")
        try:
            yield
        except httpx.LocalProtocolError as error:
            raise invalid(f"this cannot be sent: {error}") from error
        except httpx.TransportError as error:
            raise unreachable(error, self._http.base_url) from error
        except httpx.InvalidURL as error:
            raise invalid(f"{path[:100]!r} makes no URL: {error}") from error
