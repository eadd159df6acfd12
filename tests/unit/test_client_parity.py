"""Both faces of the client send the same requests, and fail the same way, for every method there is."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragver import wire
from ragver.client import ApiError, AsyncClient, Client, Retries

URL = "http://ragver.test"
OPENAPI = Path(__file__).parents[2] / "schema" / "openapi.json"
FOR_OTHER_TOOLS = {("GET", "/healthz"), ("GET", "/metrics"), ("DELETE", "/v1/corpora/{corpus}/pins")}
"""Probes, and a second way to let go of a pin."""
AT_ONCE = Retries(2, 0.0, 0.0)
ARGUMENTS: dict[str, Any] = {
    "corpus": "handbook",
    "key": "policies/leave.md",
    "keys": ["a", "b"],
    "ops": [wire.Delete(op="delete", key="a")],
    "document": "text",
    "question": "how?",
    "snapshot": "token",
    "answer": "so [1]",
    "answer_id": "an-answer",
    "ids": ["an-answer"],
    "request": wire.KeyCreate(name="app", role="reader"),
    "key_id": "1",
    "generation_id": "1",
    "run_id": "1",
    "pin_id": "1",
    "ttl_s": 60,
    "erasure_id": "1",
    "url": "https://app.test/recalls",
    "webhook_id": "1",
    "reason": "why",
}
"""What is given for a parameter of this name, wherever it has no default or stands here."""
INSTEAD: dict[str, dict[str, Any]] = {"pin": {"snapshot": None, "epoch": 1}, "validate": {"answer_id": None}}
"""Where these together would make no request."""
OPENED_LATER = {"gate", "close"}


def calls() -> list[str]:
    methods = inspect.getmembers(AsyncClient, callable)
    return [name for name, _ in methods if not name.startswith("_") and name not in OPENED_LATER]


def arguments(method: Callable[..., Any]) -> dict[str, Any]:
    wanted = list(inspect.signature(method).parameters.values())[1:]
    missing = [one.name for one in wanted if one.default is one.empty and one.name not in ARGUMENTS]
    assert [] == missing, "say in ARGUMENTS what to give for these"
    given = {one.name: ARGUMENTS[one.name] for one in wanted if one.name in ARGUMENTS}
    return given | INSTEAD.get(method.__name__, {})


class Refusing:
    """Loses the first request and refuses all others; keeps what came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        told = {name: request.headers.get(name, "") for name in ("accept", "content-type", "if-match", "authorization")}
        told["idempotent"] = str("idempotency-key" in request.headers)
        self.requests.append((request.method, str(request.url), told, request.content))
        if len(self.requests) == 1:
            raise httpx.ReadError("lost")
        problem = wire.Problem(type="u", title="T", status=403, code="forbidden", retryable=False, detail="no")
        return httpx.Response(403, text=problem.model_dump_json())


async def asynchronously(name: str) -> tuple[str, Refusing]:
    server = Refusing()
    client = AsyncClient(URL, api_key="k", retries=AT_ONCE, transport=httpx.MockTransport(server))

    async def ask() -> None:
        called = getattr(client, name)(**arguments(getattr(AsyncClient, name)))
        await (anext(called) if inspect.isasyncgen(called) else called)

    async with client:
        with pytest.raises(ApiError) as caught:
            await ask()
    return caught.value.code, server


def synchronously(name: str) -> tuple[str, Refusing]:
    server = Refusing()
    client = Client(URL, api_key="k", retries=AT_ONCE, transport=httpx.MockTransport(server))

    def ask() -> None:
        called = getattr(client, name)(**arguments(getattr(Client, name)))
        if inspect.isgenerator(called):
            next(called)

    with client, pytest.raises(ApiError) as caught:
        ask()
    return caught.value.code, server


@pytest.mark.parametrize("name", calls())
async def test_both_faces_send_the_same(name: str) -> None:
    expected_code, expected = await asynchronously(name)
    code, sent = synchronously(name)

    assert expected.requests == sent.requests
    assert expected_code == code
    assert sent.requests, "nothing was sent: give better ARGUMENTS"


async def test_every_call_of_the_api_has_a_method() -> None:
    """A new route gets a method in ``ragver/client/``; what people look at with other tools needs none."""
    paths = json.loads(OPENAPI.read_text(encoding="utf-8"))["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods} - FOR_OTHER_TOOLS
    requests = [request for name in calls() for request in (await asynchronously(name))[1].requests]
    sent = {(method, httpx.URL(url).raw_path.decode()) for method, url, *_ in requests}

    def reached(method: str, path: str) -> bool:
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/?]+", path) + r"(\?.*)?")
        return any(method == one and pattern.fullmatch(target) for one, target in sent)

    assert set() == {(method, path) for method, path in routes if not reached(method, path)}
