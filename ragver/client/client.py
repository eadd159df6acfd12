"""The asynchronous client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from ragver import wire
from ragver.client.errors import ApiError, refusal, strange, unreachable
from ragver.client.events import data_of

CONNECT_S_MAX = 5.0
ANSWER_S_MAX = 120.0
"""Covers a fenced commit, which waits up to a minute on purpose."""
FEED_SILENCE_S_MAX = 60.0
"""The server sends a heartbeat at least every 15 seconds."""
PAGE = 1_000

Answer = TypeVar("Answer", bound=BaseModel)
Parameters = Mapping[str, str | int | bool | None]


class AsyncClient:
    """The API of one server, a method for each call.

    - Bodies are those of ``ragver.wire``.
    - Every failure is an ``ApiError``; nothing is retried.
    - `transport` is any of httpx's, so ``httpx.ASGITransport(app)`` talks to an application in this process.
      That one cannot stream, so ``follow`` needs a server.

    Use it as an async context manager, or call ``close``.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        answer_s_max: float = ANSWER_S_MAX,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, transport=transport, timeout=httpx.Timeout(answer_s_max, connect=CONNECT_S_MAX)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # ── corpora ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_corpus(self, request: wire.CorpusCreate) -> wire.Corpus:
        """Make an empty corpus."""
        return _parsed(wire.Corpus, await self._send("POST", "/v1/corpora", body=request))

    async def corpora(self) -> list[wire.Corpus]:
        """Every corpus, by name."""
        return _parsed(wire.CorpusList, await self._send("GET", "/v1/corpora")).corpora

    async def corpus(self, name: str) -> wire.Corpus:
        """A corpus with its head and sizes."""
        return _parsed(wire.Corpus, await self._send("GET", _path(name)))

    async def delete_corpus(self, name: str) -> None:
        """Remove a corpus with everything in it."""
        await self._send("DELETE", _path(name))

    # ── commits ─────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(
        self,
        corpus: str,
        ops: Sequence[wire.Operation],
        *,
        reason: str | None = None,
        actor: str | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        stages: dict[str, float] | None = None,
    ) -> wire.CommitResult:
        """Apply operations in order, as one commit.

        Adds to `stages` the seconds that the server says it spent in each stage.
        """
        response = await self._send(
            "POST",
            _path(corpus, "commits"),
            body=wire.CommitRequest(ops=list(ops), reason=reason, actor=actor),
            parameters={"fence": fence or None},
            headers=_idempotent(idempotency_key),
        )
        if stages is not None:
            for stage, seconds in _server_timing(response).items():
                stages[stage] = stages.get(stage, 0.0) + seconds
        return _parsed(wire.CommitResult, response)

    async def commits(self, corpus: str, *, since: int = 0, limit: int = 100) -> list[wire.CommitEntry]:
        """Up to `limit` commits after epoch `since`, oldest first."""
        response = await self._send("GET", _path(corpus, "commits"), parameters={"since": since, "limit": limit})
        return _parsed(wire.CommitPage, response).commits

    async def each_commit(self, corpus: str, *, since: int = 0) -> AsyncIterator[wire.CommitEntry]:
        """All commits after epoch `since` that there are, oldest first."""
        while page := await self.commits(corpus, since=since, limit=PAGE):
            for entry in page:
                yield entry
            since = page[-1].epoch

    async def follow(self, corpus: str, *, since: int = 0) -> AsyncIterator[wire.CommitEntry]:
        """Each commit after epoch `since`, those to come included; ends when the server ends the feed."""
        path = _path(corpus, "commits")
        timeout = httpx.Timeout(FEED_SILENCE_S_MAX, connect=CONNECT_S_MAX)
        with self._reaching(path):
            async with self._http.stream(
                "GET", path, params={"since": since}, headers={"Accept": "text/event-stream"}, timeout=timeout
            ) as response:
                if response.is_error:
                    await response.aread()
                    raise refusal(response)
                async for data in data_of(response.aiter_bytes()):
                    yield wire.CommitEntry.model_validate_json(data)

    # ── documents ───────────────────────────────────────────────────────────────────────────────────────────

    async def put_document(
        self,
        corpus: str,
        key: str,
        document: wire.DocumentInput,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> wire.CommitResult:
        """Give a document a whole new state; with `if_version`, only if that is its version (0: there is none)."""
        response = await self._send(
            "PUT",
            _path(corpus, "documents", key),
            body=document,
            parameters={"fence": fence or None, "reason": reason, "actor": actor},
            headers=_conditional(if_version) | _idempotent(idempotency_key),
        )
        return _parsed(wire.CommitResult, response)

    async def document(self, corpus: str, key: str, *, at_epoch: int | None = None) -> wire.Document:
        """A document as it is, or was at an epoch."""
        path = _path(corpus, "documents", key)
        return _parsed(wire.Document, await self._send("GET", path, parameters={"at_epoch": at_epoch}))

    async def delete_document(
        self,
        corpus: str,
        key: str,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> wire.CommitResult:
        """Delete a document; with `fence`, returns when no verdict from before can still be acted on."""
        response = await self._send(
            "DELETE",
            _path(corpus, "documents", key),
            parameters={"fence": fence or None, "reason": reason, "actor": actor},
            headers=_conditional(if_version) | _idempotent(idempotency_key),
        )
        return _parsed(wire.CommitResult, response)

    async def documents(
        self,
        corpus: str,
        *,
        prefix: str = "",
        at_epoch: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> wire.DocumentPage:
        """One page of the documents alive, in the order of their keys."""
        parameters = {"prefix": prefix or None, "at_epoch": at_epoch, "cursor": cursor, "limit": limit}
        return _parsed(wire.DocumentPage, await self._send("GET", _path(corpus, "documents"), parameters=parameters))

    async def each_document(
        self, corpus: str, *, prefix: str = "", at_epoch: int | None = None
    ) -> AsyncIterator[wire.DocumentSummary]:
        """All documents alive at one epoch, in the order of their keys."""
        cursor = None
        while True:
            page = await self.documents(corpus, prefix=prefix, at_epoch=at_epoch, cursor=cursor, limit=PAGE)
            for document in page.documents:
                yield document
            if (cursor := page.next_cursor) is None:
                return

    async def versions(self, corpus: str, key: str) -> list[wire.DocumentVersion]:
        """All versions of a document, oldest first."""
        response = await self._send("GET", _path(corpus, "versions"), parameters={"key": key})
        return _parsed(wire.DocumentVersions, response).versions

    # ── reads ───────────────────────────────────────────────────────────────────────────────────────────────

    async def retrieve(self, corpus: str, request: wire.RetrieveRequest) -> wire.RetrieveResponse:
        """Passages at one epoch, with the snapshot to validate against."""
        return _parsed(wire.RetrieveResponse, await self._send("POST", _path(corpus, "retrieve"), body=request))

    async def validate(self, corpus: str, request: wire.ValidateRequest) -> wire.ValidateResponse:
        """Check what generated text cites.

        A verdict may be acted on for its `valid_for_ms`, counted from before this call.
        """
        return _parsed(wire.ValidateResponse, await self._send("POST", _path(corpus, "validate"), body=request))

    async def ready(self) -> wire.Readiness:
        """Which of the stores the server can reach; also an answer, not an error, when it is not ready."""
        response = await self._answer("GET", "/readyz")
        if response.status_code not in (200, 503):
            raise refusal(response)
        return _parsed(wire.Readiness, response)

    # ── audit ───────────────────────────────────────────────────────────────────────────────────────────────

    async def verify_log(self, corpus: str, *, anchor: tuple[int, str] | None = None) -> wire.LogVerification:
        """Walk the hash chain of the log; with an epoch and its hash that were written down, hold it against them."""
        epoch, digest = (None, None) if anchor is None else anchor
        path = _path(corpus, "commits", "verification")
        response = await self._send("GET", path, parameters={"epoch": epoch, "hash": digest})
        return _parsed(wire.LogVerification, response)

    # ── transport ───────────────────────────────────────────────────────────────────────────────────────────

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        parameters: Parameters | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent: dict[str, Any] = {"headers": dict(headers or {})}
        if body is not None:
            sent["content"] = body.model_dump_json(exclude_unset=True)
            sent["headers"]["Content-Type"] = "application/json"
        if parameters is not None:
            sent["params"] = {name: value for name, value in parameters.items() if value is not None}
        response = await self._answer(method, path, **sent)
        if not response.is_success:
            raise refusal(response)
        return response

    async def _answer(self, method: str, path: str, **sent: Any) -> httpx.Response:
        with self._reaching(path):
            return await self._http.request(method, path, **sent)

    @contextmanager
    def _reaching(self, path: str) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise unreachable(error, self._http.base_url) from error
        except httpx.InvalidURL as error:
            raise ApiError("invalid_request", 0, False, f"{path[:100]!r} makes no URL: {error}") from error


def _path(corpus: str, *rest: str) -> str:
    return "/".join(["/v1/corpora", *(_quoted(part) for part in (corpus, *rest))])


def _quoted(part: str) -> str:
    # Dots as well, so that a key like `../x` reaches the server as it is and not resolved.
    return quote(part, safe="").replace(".", "%2E")


def _idempotent(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    if not key.isascii():
        raise ApiError("invalid_request", 0, False, f"an idempotency key is a header, so ASCII: {key!r} is not")
    return {"Idempotency-Key": key}


def _conditional(if_version: int | None) -> dict[str, str]:
    match if_version:
        case None:
            return {}
        case 0:
            return {"If-None-Match": "*"}
        case _:
            return {"If-Match": f'"{if_version}"'}


def _parsed(kind: type[Answer], response: httpx.Response) -> Answer:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise strange(response) from error


def _server_timing(response: httpx.Response) -> dict[str, float]:
    """Seconds by stage, from the Server-Timing header (W3C)."""
    stages: dict[str, float] = {}
    for entry in response.headers.get("Server-Timing", "").split(","):
        name, _, milliseconds = entry.strip().partition(";dur=")
        if milliseconds:
            stages[name] = float(milliseconds) / 1000
    return stages
