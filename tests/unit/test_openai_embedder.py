"""The embedder behind HTTP: what it sends, when it tries again, and what it refuses to believe."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from ragver.embedding.openai import (
    ATTEMPTS_MAX,
    BACKOFF_S_MAX,
    CHARACTERS_PER_REQUEST_MAX,
    INPUTS_PER_REQUEST_MAX,
    REQUESTS_AT_ONCE_MAX,
    OpenAIEmbedder,
)
from ragver.errors import EmbeddingUnavailable

KEY = "sk-very-secret"
Handler = Callable[[httpx.Request], httpx.Response]


class Sleeper:
    """Sleeps by writing down for how long."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


def embedder(
    transport: httpx.AsyncBaseTransport | None = None, *, sleep: Sleeper | None = None, **changes: Any
) -> OpenAIEmbedder:
    options: dict[str, Any] = {
        "base_url": "http://models.test/v1/",
        "api_key": KEY,
        "model": "small",
        "dimensions": 2,
        "timeout_s": 5.0,
    }
    return OpenAIEmbedder(**(options | changes), transport=transport, sleep=sleep or Sleeper())


def vector_of(text: str) -> list[float]:
    return [float(len(text)), 1.0]


def answer(texts: list[str]) -> dict[str, Any]:
    """A good answer, its items in another order than the texts."""
    items = [{"object": "embedding", "index": i, "embedding": vector_of(text)} for i, text in enumerate(texts)]
    return {"object": "list", "data": items[::-1], "model": "small"}


def good(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=answer(json.loads(request.content)["input"]))


class Service:
    """Gives one reply after the other, then good ones, and keeps what it was asked."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self.replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if not self.replies:
            return good(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    """Whatever the order of the answer, `index` decides."""
    service = Service()
    matrix = await embedder(httpx.MockTransport(service)).embed_documents(["a", "bbb", "cc"])
    assert [[1.0, 1.0], [3.0, 1.0], [2.0, 1.0]] == matrix.tolist()
    assert np.float32 == matrix.dtype


async def test_the_request_is_what_openai_documents() -> None:
    """Model, inputs, float encoding and the key as bearer; no dimensions where they are the model's own."""
    service = Service()
    await embedder(httpx.MockTransport(service)).embed_query("leave")
    assert [{"model": "small", "input": ["leave"], "encoding_format": "float"}] == service.bodies
    assert "http://models.test/v1/embeddings" == str(service.requests[0].url)
    assert f"Bearer {KEY}" == service.requests[0].headers["Authorization"]


async def test_fewer_dimensions_are_asked_for_where_the_model_can_do_it() -> None:
    """A shortenable model is told how short; at its own length the parameter stays out."""
    service = Service(*(httpx.Response(400) for _ in range(2)))
    for dimensions in (256, 1536):
        with pytest.raises(EmbeddingUnavailable):
            await embedder(
                httpx.MockTransport(service), model="text-embedding-3-small", dimensions=dimensions
            ).embed_query("leave")
    assert [256, None] == [body.get("dimensions") for body in service.bodies]


async def test_what_the_base_url_asks_for_is_kept() -> None:
    """Gateways want parameters of their own."""
    service = Service()
    await embedder(httpx.MockTransport(service), base_url="https://models.test/v1/?api-version=2").embed_query("leave")
    assert "https://models.test/v1/embeddings?api-version=2" == str(service.requests[0].url)


async def test_without_a_key_none_is_sent() -> None:
    """Services on the own machine need none."""
    service = Service()
    await embedder(httpx.MockTransport(service), api_key=None).embed_query("leave")
    assert "Authorization" not in service.requests[0].headers


async def test_an_empty_text_is_sent_as_a_space() -> None:
    """The API refuses empty strings, and a document may hold an empty chunk."""
    service = Service()
    await embedder(httpx.MockTransport(service)).embed_documents(["", "a"])
    assert [" ", "a"] == service.bodies[0]["input"]


async def test_no_texts_make_no_request() -> None:
    """The matrix has no rows and the right width."""
    service = Service()
    matrix = await embedder(httpx.MockTransport(service)).embed_documents([])
    assert ((0, 2), []) == (matrix.shape, service.requests)


async def test_batches_are_bounded_in_texts_and_in_characters() -> None:
    """Every request keeps both bounds; a text beyond them goes alone; nothing is lost or reordered."""
    texts = ["a" * (i % 7) for i in range(INPUTS_PER_REQUEST_MAX * 2 + 1)]
    texts += ["b" * (CHARACTERS_PER_REQUEST_MAX + 1), "c" * (CHARACTERS_PER_REQUEST_MAX // 2 + 1)] * 2
    service = Service()
    matrix = await embedder(httpx.MockTransport(service)).embed_documents(texts)
    assert [max(1.0, len(text)) for text in texts] == matrix[:, 0].tolist()
    inputs = [body["input"] for body in service.bodies]
    assert all(len(batch) <= INPUTS_PER_REQUEST_MAX for batch in inputs)
    assert all(len(batch) == 1 or sum(map(len, batch)) <= CHARACTERS_PER_REQUEST_MAX for batch in inputs)


async def test_only_so_many_requests_run_at_once() -> None:
    """More wait for their turn."""
    running, most = 0, 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return good(request)

    await embedder(httpx.MockTransport(handler)).embed_documents(["a"] * INPUTS_PER_REQUEST_MAX * 12)
    assert REQUESTS_AT_ONCE_MAX == most


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(429),
        httpx.Response(500),
        httpx.Response(503, text="loading"),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.ConnectTimeout("slow"),
    ],
    ids=repr,
)
async def test_passing_trouble_is_overcome(trouble: httpx.Response | Exception) -> None:
    """What may be over in a moment is tried again after a pause."""
    service, sleep = Service(trouble), Sleeper()
    vector = await embedder(httpx.MockTransport(service), sleep=sleep).embed_query("leave")
    assert ([5.0, 1.0], 2, 1) == (vector.tolist(), len(service.requests), len(sleep.pauses))
    assert 0.0 <= sleep.pauses[0] <= BACKOFF_S_MAX


async def test_lasting_trouble_is_an_error_after_a_bounded_number_of_attempts() -> None:
    """The message says what the service said and how often it was asked."""
    service, sleep = Service(*(httpx.Response(500, text="out of\nmemory") for _ in range(9))), Sleeper()
    with pytest.raises(EmbeddingUnavailable, match=f"answered 500: out of memory, {ATTEMPTS_MAX} times"):
        await embedder(httpx.MockTransport(service), sleep=sleep).embed_query("leave")
    assert (ATTEMPTS_MAX, ATTEMPTS_MAX - 1) == (len(service.requests), len(sleep.pauses))


async def test_a_pause_that_is_asked_for_is_kept() -> None:
    """Retry-After in seconds is honoured to the second."""
    sleep = Sleeper()
    service = Service(httpx.Response(429, headers={"Retry-After": "7"}))
    await embedder(httpx.MockTransport(service), sleep=sleep).embed_query("leave")
    assert [7.0] == sleep.pauses


@pytest.mark.parametrize("retry_after", ["Wed, 21 Oct 2015 07:28:00 GMT", "0"])
async def test_a_pause_that_is_over_is_none(retry_after: str) -> None:
    """Retry-After may be a date, also one in the past."""
    sleep = Sleeper()
    service = Service(httpx.Response(503, headers={"Retry-After": retry_after}))
    await embedder(httpx.MockTransport(service), sleep=sleep).embed_query("leave")
    assert [0.0] == sleep.pauses


async def test_a_retry_after_that_cannot_be_read_is_passed_over() -> None:
    """The usual pause takes its place."""
    sleep = Sleeper()
    service = Service(httpx.Response(503, headers={"Retry-After": "soon"}))
    await embedder(httpx.MockTransport(service), sleep=sleep).embed_query("leave")
    assert 1 == len(sleep.pauses)


@pytest.mark.parametrize("retry_after", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_too_long_a_pause_is_not_waited_for(retry_after: str) -> None:
    """Nobody waits an hour for a vector: that is unavailable, and is said at once."""
    service, sleep = Service(httpx.Response(429, headers={"Retry-After": retry_after})), Sleeper()
    with pytest.raises(EmbeddingUnavailable, match=r"answered 429 and asks to wait \d+ s"):
        await embedder(httpx.MockTransport(service), sleep=sleep).embed_query("leave")
    assert ([], 1) == (sleep.pauses, len(service.requests))


@pytest.mark.parametrize("status", [302, 400, 404, 413, 422])
async def test_a_refusal_is_not_tried_again(status: int) -> None:
    """The same request would be refused again."""
    service = Service(httpx.Response(status, text="no such model"))
    with pytest.raises(EmbeddingUnavailable, match=f"answered {status}: no such model"):
        await embedder(httpx.MockTransport(service)).embed_query("leave")
    assert 1 == len(service.requests)


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(401, text=f"Incorrect API key provided: {KEY}"),
        httpx.Response(403, text="Incorrect API key provided: sk-very-*****"),
        httpx.Response(400, text=f"header Bearer {KEY} is not understood"),
        httpx.ConnectError(f"cannot send {KEY}"),
    ],
    ids=repr,
)
async def test_no_message_holds_the_key(reply: httpx.Response | Exception) -> None:
    """Nor does it hold what the URL may hide."""
    service = Service(*[reply] * ATTEMPTS_MAX)
    with pytest.raises(EmbeddingUnavailable) as caught:
        await embedder(
            httpx.MockTransport(service), base_url="http://ada:hush@models.test/v1?token=hush"
        ).embed_documents(["leave"])
    assert "sk-very" not in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "models.test" in str(caught.value)


def encoded(*values: float) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


async def test_base64_is_understood() -> None:
    """Some services send it whatever they are asked for."""
    service = Service(httpx.Response(200, json={"data": [{"index": 0, "embedding": encoded(0.5, -2.0)}]}))
    assert [0.5, -2.0] == (await embedder(httpx.MockTransport(service)).embed_query("leave")).tolist()


def one(embedding: object, index: object = 0) -> str:
    return json.dumps({"data": [{"index": index, "embedding": embedding}]})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>welcome</html>", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "without a list"),
        ("{}", "without a list"),
        ('{"data": {}}', "without a list"),
        ('{"data": [1]}', "without a list"),
        ('{"data": []}', "0 embeddings for 1 texts"),
        (json.dumps({"data": [{"index": i, "embedding": [1, 2]} for i in (0, 1)]}), "2 embeddings for 1 texts"),
        (one([1.0, 2.0], index=1), "not numbered"),
        (one([1.0, 2.0], index="0"), "not numbered"),
        (one([1.0, 2.0], index=False), "not numbered"),
        (one([1.0, 2.0], index=[]), "not numbered"),
        ('{"data": [{"embedding": [1.0, 2.0]}]}', "not numbered"),
        ('{"data": [{"index": 0}]}', "not a list of numbers"),
        (one(None), "not a list of numbers"),
        (one(["1", "2"]), "not a list of numbers"),
        (one([[1.0, 2.0]]), "not a list of numbers"),
        (one([True, False]), "not a list of numbers"),
        (one([1.0]), "1 dimensions, where 2 were expected"),
        (one([]), "0 dimensions, where 2 were expected"),
        (one([1.0, float("nan")]), "not finite"),
        (one([1.0, float("inf")]), "not finite"),
        (one([1.0, 1e39]), "not finite"),
        (one([1.0, 10**400]), "not finite"),
        (one("§"), "not base64"),
        (one("AAAA"), "not base64"),
        (one(encoded(1.0)), "1 dimensions, where 2 were expected"),
        (one(encoded(1.0, float("nan"))), "not finite"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(body: str, message: str) -> None:
    """It is not tried again, and not a number of it gets through."""
    service = Service(httpx.Response(200, text=body))
    with pytest.raises(EmbeddingUnavailable, match=message):
        await embedder(httpx.MockTransport(service)).embed_query("leave")
    assert 1 == len(service.requests)


async def test_the_same_index_twice_is_an_error() -> None:
    """One vector for two texts would be wrong for one of them."""
    items = [{"index": 0, "embedding": [1.0, 2.0]}] * 2
    service = Service(httpx.Response(200, json={"data": items}))
    with pytest.raises(EmbeddingUnavailable, match="not numbered"):
        await embedder(httpx.MockTransport(service)).embed_documents(["a", "b"])


async def test_one_failed_batch_fails_all_with_its_own_message() -> None:
    """No partial matrix, and no group of errors to take apart."""

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, text="too long") if "bad" in json.loads(request.content)["input"] else good(request)

    texts = ["a"] * INPUTS_PER_REQUEST_MAX + ["bad"]
    with pytest.raises(EmbeddingUnavailable, match="answered 400: too long"):
        await embedder(httpx.MockTransport(handler)).embed_documents(texts)


# ── over a real socket ──────────────────────────────────────────────────────────────────────────────────────


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


GOOD = http("200 OK", one([1.0, 2.0]).encode())


@asynccontextmanager
async def serving(*replies: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives these replies in turn, None being silence; its base URL, and what it was sent."""
    waiting, seen = list(replies), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        seen.append(head + await reader.readexactly(length))
        reply = waiting.pop(0)
        if reply is None:
            await reader.read()  # until the other side hangs up
        else:
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", seen


@pytest.mark.parametrize(
    "trouble",
    [
        http("429 Too Many Requests", b"", "Retry-After: 0"),
        http("500 Internal Server Error", b"oops"),
        b"",
        GOOD[:-5],
        b"SMTP ready\r\n",
    ],
    ids=["429", "500", "hangs up", "half an answer", "not HTTP"],
)
async def test_a_real_server_in_passing_trouble(trouble: bytes) -> None:
    """A service that recovers is not noticed."""
    async with serving(trouble, GOOD) as (url, seen):
        client = embedder(base_url=url)
        vector = await client.embed_query("leave")
        await client.aclose()
    assert ([1.0, 2.0], 2) == (vector.tolist(), len(seen))


async def test_a_real_server_that_is_silent() -> None:
    """The whole request has one time limit; after it comes the next attempt."""
    async with serving(None, GOOD) as (url, seen):
        client = embedder(base_url=url, timeout_s=0.2)
        vector = await client.embed_query("leave")
        await client.aclose()
    assert ([1.0, 2.0], 2) == (vector.tolist(), len(seen))


async def test_a_real_server_that_stays_silent() -> None:
    """In the end that is an error that names the limit."""
    async with serving(*[None] * ATTEMPTS_MAX) as (url, seen):
        client = embedder(base_url=url, timeout_s=0.05)
        with pytest.raises(EmbeddingUnavailable, match=rf"did not answer within 0\.05 s, {ATTEMPTS_MAX} times"):
            await client.embed_query("leave")
        await client.aclose()
    assert ATTEMPTS_MAX == len(seen)


async def test_no_server_at_all() -> None:
    """A refused connection is tried again too, then told."""
    async with serving() as (url, _):
        pass
    client = embedder(base_url=url)
    with pytest.raises(EmbeddingUnavailable, match="cannot be reached"):
        await client.embed_documents(["leave"])
    await client.aclose()
