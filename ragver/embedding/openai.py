"""An embedder behind HTTP: anything that speaks OpenAI's ``POST /embeddings``."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from ragver.embedding.port import Matrix
from ragver.errors import EmbeddingUnavailable

MODELS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
"""OpenAI's own models with the dimensions they have when none are asked for."""
SHORTENABLE = frozenset({"text-embedding-3-small", "text-embedding-3-large"})
"""Models that can be asked for fewer dimensions."""

INPUTS_PER_REQUEST_MAX = 32
"""What the strictest of the common servers takes by default."""
CHARACTERS_PER_REQUEST_MAX = 100_000
"""A bound on the tokens of a request; a longer text goes alone."""
REQUESTS_AT_ONCE_MAX = 4

ATTEMPTS_MAX = 4
BACKOFF_S_FIRST = 0.5
BACKOFF_S_MAX = 8.0
RETRY_AFTER_S_MAX = 30.0
"""A service that asks for a longer pause than this is unavailable."""
EXCERPT_CHARS_MAX = 200
"""How much of a refusal is quoted."""

_TOO_MANY_REQUESTS = 429


class OpenAIEmbedder:
    """Vectors from an OpenAI-compatible service.

    A request that meets a lost connection, a timeout, a 429 or a 5xx is repeated, a bounded number of times and
    with random pauses. Every answer is checked before a number of it is used. Messages never hold the key.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        dimensions: int,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        base = httpx.URL(base_url)
        self._url = base.copy_with(path=base.path.rstrip("/") + "/embeddings")
        self._model = model
        self._dimensions = dimensions
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._slots = asyncio.Semaphore(REQUESTS_AT_ONCE_MAX)
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        # Time is bounded for a request as a whole: httpx counts it anew for every piece that arrives.
        self._client = httpx.AsyncClient(headers=headers, timeout=None, transport=transport)

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._embed(batch)) for batch in _batches(texts)]
        except ExceptionGroup as failures:
            # The first failure ends the others, and says what there is to say.
            raise failures.exceptions[0] from None
        return np.concatenate([task.result() for task in tasks])

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = (await self._embed([text]))[0]
        return vector

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _embed(self, texts: Sequence[str]) -> Matrix:
        async with self._slots:
            body = await self._answer(self._request(texts))
        try:
            return await asyncio.to_thread(_parse, body, len(texts), self._dimensions)
        except _Nonsense as error:
            raise self._unavailable(f"answered {error}") from error

    def _request(self, texts: Sequence[str]) -> dict[str, Any]:
        # The service refuses empty strings; a space is as little as it takes.
        request: dict[str, Any] = {
            "model": self._model,
            "input": [text or " " for text in texts],
            "encoding_format": "float",
        }
        # Asked for only where it changes something: many services refuse to hear of it.
        if self._model in SHORTENABLE and self._dimensions != MODELS[self._model]:
            request["dimensions"] = self._dimensions
        return request

    async def _answer(self, request: dict[str, Any]) -> bytes:
        """The body of a successful answer."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            response, trouble = await self._attempt(request)
            if response is not None and response.is_success:
                return response.content
            if response is not None and not _passing(response):
                break
            if attempt == ATTEMPTS_MAX:
                trouble += f", {ATTEMPTS_MAX} times"
                break
            pause_s = _pause_s(attempt, response)
            if pause_s > RETRY_AFTER_S_MAX:
                trouble += f" and asks to wait {pause_s:.0f} s"
                break
            await self._sleep(pause_s)
        raise self._unavailable(trouble)

    async def _attempt(self, request: dict[str, Any]) -> tuple[httpx.Response | None, str]:
        """An answer or none, and how to speak of it should it be the last."""
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(self._url, json=request)
        except TimeoutError:
            return None, f"did not answer within {self._timeout_s:g} s"
        except (httpx.TransportError, httpx.DecodingError) as error:
            return None, f"cannot be reached ({type(error).__name__}: {self._redacted(str(error))})"
        return response, f"answered {response.status_code}{self._excerpt(response)}"

    def _excerpt(self, response: httpx.Response) -> str:
        if response.status_code in (401, 403):
            # Such answers like to quote the key, in part or in whole.
            return ": check RAGVER_OPENAI_API_KEY"
        text = " ".join(self._redacted(response.text).split())[:EXCERPT_CHARS_MAX]
        return f": {text}" if text else ""

    def _redacted(self, text: str) -> str:
        return text.replace(self._api_key, "[key]") if self._api_key else text

    def _unavailable(self, trouble: str) -> EmbeddingUnavailable:
        # Without user, password and query: they may be secrets.
        where = self._url.copy_with(userinfo=b"", query=None)
        return EmbeddingUnavailable(f"the embedding service at {where} (model {self._model!r}) {trouble}")


class _Nonsense(Exception):
    """An answer that is not one finite vector of the right length for every text; says what it is."""


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        full = len(batch) == INPUTS_PER_REQUEST_MAX or characters + len(text) > CHARACTERS_PER_REQUEST_MAX
        if batch and full:
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def _passing(response: httpx.Response) -> bool:
    return response.status_code == _TOO_MANY_REQUESTS or response.is_server_error


def _pause_s(attempt: int, response: httpx.Response | None) -> float:
    asked_s = None if response is None else _retry_after_s(response.headers.get("Retry-After"))
    if asked_s is not None:
        return asked_s
    # Somewhere up to the bound, so that those who failed together do not come back together.
    return random.uniform(0.0, min(BACKOFF_S_MAX, BACKOFF_S_FIRST * 2.0**attempt))


def _retry_after_s(header: str | None) -> float | None:
    """The pause that is asked for, in seconds or as a date; None if there is none, or none that can be read."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None


def _parse(body: bytes, count: int, dimensions: int) -> Matrix:
    """The vectors in the order of the texts. Raises ``_Nonsense``."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise _Nonsense("with something that is not JSON") from None
    items = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _Nonsense("without a list of embeddings")
    if len(items) != count:
        raise _Nonsense(f"with {len(items)} embeddings for {count} texts")
    by_index = {item.get("index"): item.get("embedding") for item in items if type(item.get("index")) is int}
    if by_index.keys() != set(range(count)):
        raise _Nonsense("with embeddings that are not numbered as the texts are")
    return np.stack([_vector(by_index[index], dimensions) for index in range(count)])


def _vector(embedding: object, dimensions: int) -> NDArray[np.float32]:
    values = _decoded(embedding) if isinstance(embedding, str) else _numbers(embedding)
    if values.size != dimensions:
        raise _Nonsense(f"with an embedding of {values.size} dimensions, where {dimensions} were expected")
    with np.errstate(over="ignore"):
        vector = values.astype(np.float32)
    if not np.isfinite(vector).all():
        raise _Nonsense("with an embedding whose numbers are not finite")
    return vector


def _numbers(embedding: object) -> NDArray[np.float64]:
    if not isinstance(embedding, list) or not all(type(value) in (int, float) for value in embedding):
        raise _Nonsense("with an embedding that is not a list of numbers")
    try:
        return np.array(embedding, dtype=np.float64)
    except OverflowError:
        raise _Nonsense("with an embedding whose numbers are not finite") from None


def _decoded(embedding: str) -> NDArray[np.float32]:
    """Some services send base64 of little-endian float32, whatever they are asked for."""
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    except ValueError:
        raise _Nonsense("with an embedding that is not base64 of numbers") from None
