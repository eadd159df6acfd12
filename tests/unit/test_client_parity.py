"""Both faces of the client send the same requests, and fail the same way, for every method there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ragver import wire
from ragver.client import ApiError, AsyncClient, Client, Retries

URL = "http://ragver.test"
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
