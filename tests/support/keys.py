"""API keys for tests, and what presents them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx

from ragver import wire
from ragver.bootstrap import Services
from tests.support.ledger import query

GARBAGE = "eyJhbGciOiJIUzI1NiJ9.e30.garbage"
"""What others' services take after `Bearer`."""


class With(httpx.Auth):
    """Sends a key with a request, or whatever else stands after `Bearer`."""

    def __init__(self, key: wire.KeyCreated | str) -> None:
        self._secret = key if isinstance(key, str) else key.secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._secret}"
        yield request


async def make_key(services: Services, name: str, role: str, **more: Any) -> wire.KeyCreated:
    """A new key with its secret; `more` are fields of its creation."""
    return await services.keys.create_key(wire.KeyCreate.model_validate({"name": name, "role": role, **more}))


async def expire(services: Services, key: wire.ApiKey) -> None:
    """Let a key's time be up, and this process know."""
    statement = "UPDATE api_key SET expires_at = now() - interval '1 s' WHERE id = $1 RETURNING id"
    assert 1 == len(await query(services.database.url, statement, key.id))
    await services.keys._renew()


def unknown(key: wire.KeyCreated) -> dict[str, str | None]:
    """Keys of the right form that are none: the secret of another, an id that nobody has, one character off."""
    start, key_id, secret = key.secret.split("_")
    off = "0" if secret[-1] != "0" else "1"
    return {
        "an unknown id": f"{start}_{'0' * len(key_id)}_{secret}",
        "a wrong secret": f"{start}_{key_id}_{secret[:-1]}{off}",
        "a secret too short": f"{start}_{key_id}_{secret[:-1]}",
        "a key and more": f"{key.secret} {key.secret}",
    }
