"""API keys: made, used, noted, revoked; and what nobody gets to see of them."""

from __future__ import annotations

import asyncio
import hashlib
import re
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from structlog.testing import capture_logs

from ragver import wire
from ragver.api.access import hung_up
from ragver.api.app import create_app
from ragver.api.authentication import CALLER
from ragver.bootstrap import Services
from ragver.caller import ANYBODY, OPERATOR
from ragver.clock import SystemClock
from ragver.errors import KeyInvalid, LedgerUnavailable, RateLimited
from ragver.keys import KEYS_AGE_S_MAX, Keys
from ragver.ledger.keys import KEYS_MAX
from tests.support.api import client_of, served
from tests.support.keys import GARBAGE, With, expire, make_key
from tests.support.ledger import query
from tests.support.services import CORPUS, make_corpus, open_test_services

KEYS = "/v1/keys"
COMMITS = f"/v1/corpora/{CORPUS}/commits"
SECRET = re.compile(r"rgv_[0-9a-f]{12}_[0-9a-f]{64}")


class HandClock(SystemClock):
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
async def services(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """All services but an indexer, which keys have nothing to do with."""
    async with open_test_services(database_url, tmp_path / "data") as opened:
        yield opened


@pytest.fixture
async def api(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        yield client


async def stored(services: Services) -> list[dict[str, Any]]:
    return [dict(row) for row in await query(services.database.url, "SELECT * FROM api_key ORDER BY created_at")]


async def _away(*_: object) -> None:
    raise LedgerUnavailable("the ledger did not answer")


async def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


# ── from open to guarded ────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_key_closes_a_server_that_was_open_and_nothing_opens_it_again(api: httpx.AsyncClient) -> None:
    assert 200 == (await api.get("/v1/corpora")).status_code
    made = (await api.post(KEYS, json={"name": "operator", "role": "admin"})).json()
    assert (401, "key_missing") == await code(await api.get("/v1/corpora"))
    assert 200 == (await api.get("/v1/corpora", auth=With(made["secret"]))).status_code
    revoked = await api.delete(f"{KEYS}/{made['id']}", auth=With(made["secret"]))
    assert revoked.json()["revoked_at"] is not None
    assert (401, "key_missing") == await code(await api.get("/v1/corpora"))
    assert (401, "key_invalid") == await code(await api.get("/v1/corpora", auth=With(made["secret"])))


async def test_an_open_server_passes_over_others_credentials_but_not_over_a_key(api: httpx.AsyncClient) -> None:
    """A proxy's own are none of ours; a key that is not known here belongs to another ledger."""
    for credentials in (f"Bearer {GARBAGE}", "Basic YWRhOmFkYQ==", "Bearer", ""):
        assert 200 == (await api.get("/v1/corpora", headers={"Authorization": credentials})).status_code
    foreign = With(f"rgv_{'0' * 12}_{'0' * 64}")
    assert (401, "key_invalid") == await code(await api.get("/v1/corpora", auth=foreign))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_no_matter_of_case(services: Services, api: httpx.AsyncClient, scheme: str) -> None:
    key = await make_key(services, "ada", "reader")
    assert 200 == (await api.get("/v1/corpora", headers={"Authorization": f"{scheme}  {key.secret} "})).status_code


async def test_who_may_not_come_in_has_no_body_read(services: Services, api: httpx.AsyncClient) -> None:
    """The refusal comes before anything of the request is taken."""
    await make_key(services, "operator", "admin")

    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        taken += 1
        yield b"{}"

    assert (401, "key_missing") == await code(await api.post("/v1/corpora", content=body()))
    assert 0 == taken


async def test_in_the_process_that_made_the_application_no_key_is_needed(services: Services) -> None:
    await make_key(services, "operator", "admin")
    app = create_app(lambda: served(services), 2**20, guarded=False)
    app.state.services = services
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ragver.test") as client:
        assert 200 == (await client.get(KEYS)).status_code


async def test_the_operator_s_token_opens_everything_in_its_process_and_nothing_in_another(services: Services) -> None:
    await make_key(services, "operator", "admin")
    another = Keys(services.database, SystemClock())
    token = services.keys.operator_token
    assert OPERATOR is await services.keys.admit(token)
    with pytest.raises(KeyInvalid):
        await another.admit(token)


# ── made, listed, revoked ───────────────────────────────────────────────────────────────────────────────────


async def test_keys_are_listed_as_they_were_made(api: httpx.AsyncClient) -> None:
    wanted = {
        "name": "chat-app",
        "role": "reader",
        "corpora": ["b", "a", "a"],
        "principals": ["group:hr"],
        "rate_per_s": 2.5,
        "expires_at": "2999-01-01T00:00:00Z",
        "comment": "the chat",
    }
    first = (await api.post(KEYS, json={"name": "operator", "role": "admin"})).json()
    made = (await api.post(KEYS, json=wanted, auth=With(first["secret"]))).json()
    secret = made.pop("secret")
    assert wanted | {"corpora": ["a", "b"]} == {name: made[name] for name in wanted}
    assert SECRET.fullmatch(secret)
    assert secret.split("_")[1] == made["id"]
    listed = (await api.get(KEYS, auth=With(first["secret"]))).json()["keys"]
    assert [first["id"], made["id"]] == [key["id"] for key in listed]
    assert made == listed[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "no spaces"},
        {"name": "a:b"},
        {"role": "god"},
        {"corpora": []},
        {"role": "writer", "principals": ["group:hr"]},
        {"rate_per_s": 0},
        {"expires_at": "2999-01-01T00:00:00"},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"secret": "mine"},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(
    services: Services, api: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    answer = await api.post(KEYS, json={"name": "chat", "role": "reader"} | wrong)
    assert (422, "invalid_request") == await code(answer)
    assert [] == await stored(services)


async def test_a_name_is_taken_until_its_key_is_revoked(services: Services) -> None:
    admin = await make_key(services, "operator", "admin")
    first = await make_key(services, "chat", "reader")
    async with client_of(services) as api:
        again = await api.post(KEYS, json={"name": "chat", "role": "reader"}, auth=With(admin))
        assert (409, "key_exists") == await code(again)
        for _ in range(2):
            assert 200 == (await api.delete(f"{KEYS}/{first.id}", auth=With(admin))).status_code
        assert (404, "key_not_found") == await code(await api.delete(f"{KEYS}/nobody", auth=With(admin)))
        assert 201 == (await api.post(KEYS, json={"name": "chat", "role": "reader"}, auth=With(admin))).status_code


async def test_there_are_only_so_many_keys(services: Services) -> None:
    """Each process keeps them all in memory."""
    statement = """
        INSERT INTO api_key (id, name, hash, role)
        SELECT 'id' || n, 'key' || n, '', 'reader' FROM generate_series(1, $1) AS n
    """
    await query(services.database.url, statement, KEYS_MAX - 1)
    last = await make_key(services, "last", "admin")
    async with client_of(services) as api:
        answer = await api.post(KEYS, json={"name": "more", "role": "reader"}, auth=With(last))
        assert (422, "invalid_request") == await code(answer)
        await services.keys.revoke_key("id1")
        assert 201 == (await api.post(KEYS, json={"name": "more", "role": "reader"}, auth=With(last))).status_code


async def test_the_use_of_a_key_is_noted_to_the_minute(services: Services) -> None:
    """By the database's clock; once, however often it was used meanwhile."""
    used = await make_key(services, "used", "reader")
    unused = await make_key(services, "unused", "reader")
    for _ in range(50):
        await services.keys.admit(used.secret)
    assert 1 == len(services.keys._notes)
    await services.keys.close()
    statement = "SELECT last_used_at = date_trunc('minute', last_used_at) AND last_used_at > now() - interval '2 min'"
    (row,) = await query(services.database.url, f"{statement} AS good FROM api_key WHERE id = $1", used.id)
    assert row["good"]
    assert [None] == [key.last_used_at for key in await services.keys.keys() if key.id == unused.id]


# ── what stays secret ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_ledger_holds_hashes_only(services: Services) -> None:
    key = await make_key(services, "chat", "reader")
    (row,) = await stored(services)
    assert hashlib.sha256(key.secret.encode()).digest() == row["hash"]
    words = [value for value in row.values() if isinstance(value, str)]
    assert not any(key.secret.split("_")[2] in word for word in words)


async def test_secrets_are_in_no_log_error_or_repr(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    """Of a good key, a revoked one and the operator, whatever happens to them."""
    caplog.set_level("DEBUG")
    with capture_logs() as logs:
        good = await make_key(services, "good", "admin", rate_per_s=1)
        gone = await make_key(services, "gone", "admin")
        await services.keys.revoke_key(gone.id)
        said = [repr(good), str(good), repr(services.keys), repr(services.keys._ring), repr(wire.KeyList(keys=[gone]))]
        async with client_of(services) as api:
            for key in (good, gone, good):
                answer = await api.get("/v1/corpora", auth=With(key))
                said.append(answer.text + repr(answer.headers))
        for presented in (gone.secret, good.secret):
            try:
                await services.keys.admit(presented)
            except (KeyInvalid, RateLimited) as error:
                said += traceback.format_exception(error)
    assert 2 <= len(logs)
    everything = "\n".join([*said, repr(logs), caplog.text])
    for secret in (good.secret, gone.secret, services.keys.operator_token):
        assert secret.split("_")[-1] not in everything


# ── revoked, expired, away ──────────────────────────────────────────────────────────────────────────────────


async def test_another_process_refuses_a_revoked_key_within_its_bound(services: Services) -> None:
    """Up to the bound it goes by what it has read; a moment later it has to look."""
    clock = HandClock()
    elsewhere = Keys(services.database, clock)
    key = await make_key(services, "chat", "reader")
    assert key.id == (await elsewhere.admit(key.secret)).key_id
    await services.keys.revoke_key(key.id)
    with pytest.raises(KeyInvalid):
        await services.keys.admit(key.secret)
    clock.now_s += KEYS_AGE_S_MAX
    assert key.id == (await elsewhere.admit(key.secret)).key_id
    clock.now_s += 0.001
    with pytest.raises(KeyInvalid):
        await elsewhere.admit(key.secret)
    await elsewhere.close()


async def test_a_new_key_is_known_elsewhere_at_once_or_within_the_bound(services: Services) -> None:
    """A process that was open asks for a key by then."""
    clock = HandClock()
    elsewhere = Keys(services.database, clock)
    assert ANYBODY is await elsewhere.admit(None)
    key = await make_key(services, "chat", "reader")
    clock.now_s += KEYS_AGE_S_MAX + 0.001
    assert key.id == (await elsewhere.admit(key.secret)).key_id
    assert await elsewhere.guarded()
    await elsewhere.close()


async def test_an_open_feed_ends_with_its_key(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was let in is looked at again for as long as the answer stays open."""
    await make_corpus(services)
    key = await make_key(services, "chat", "reader")
    caller = await services.keys.admit(key.secret)
    app = create_app(lambda: served(services), 2**20)
    app.state.services = services

    class Listening(Request):
        async def is_disconnected(self) -> bool:
            return False

    request = Listening({"type": "http", "app": app, CALLER: caller})
    assert not await hung_up(request)
    with monkeypatch.context() as patched:
        patched.setattr("ragver.keys.KEYS_AGE_S_MAX", -1)
        patched.setattr(services.database, "fetch", _away)
        assert await hung_up(request), "nobody knows whether the key is still good"
    assert not await hung_up(request)
    await services.keys.revoke_key(key.id)
    assert await hung_up(request)


async def test_who_came_in_while_the_server_was_open_has_to_leave_when_it_is_closed(services: Services) -> None:
    """Except for the operator."""
    anybody = await services.keys.admit(None)
    assert await services.keys.still_good(anybody)
    await make_key(services, "operator", "admin")
    assert [False, True] == [await services.keys.still_good(caller) for caller in (anybody, OPERATOR)]


async def test_an_expired_key_is_refused_by_the_ledger_s_clock(services: Services) -> None:
    key = await make_key(services, "chat", "reader", expires_at="2999-01-01T00:00:00Z")
    assert key.id == (await services.keys.admit(key.secret)).key_id
    await expire(services, key)
    with pytest.raises(KeyInvalid):
        await services.keys.admit(key.secret)


async def test_with_the_ledger_away_nobody_is_let_in_but_to_the_metrics(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those are looked at just then; the key that opens them is still asked for."""
    key = await make_key(services, "prometheus", "reader")
    await services.keys.admit(key.secret)
    await services.keys.close()
    monkeypatch.setattr(services.database, "fetch", _away)
    monkeypatch.setattr("ragver.keys.KEYS_AGE_S_MAX", -1)
    async with client_of(services) as api:
        assert (503, "ledger_unavailable") == await code(await api.get("/v1/corpora", auth=With(key)))
        assert 200 == (await api.get("/metrics", auth=With(key))).status_code
        assert (401, "key_missing") == await code(await api.get("/metrics"))


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_with_a_rate_is_held_to_it_however_many_ask_at_once(services: Services) -> None:
    """A second's worth gets through of a hundred at once; the others are told when to come again."""
    clock = HandClock()
    keys = Keys(services.database, clock)
    limited = await make_key(services, "limited", "reader", rate_per_s=7)
    free = await make_key(services, "free", "reader")

    waits: list[float] = []

    async def let_in(key: wire.KeyCreated) -> bool:
        try:
            await keys.admit(key.secret)
        except RateLimited as error:
            waits.append(error.retry_after_s)
            return False
        return True

    assert 7 == sum(await asyncio.gather(*(let_in(limited) for _ in range(100))))
    assert all(await asyncio.gather(*(let_in(free) for _ in range(100))))
    clock.now_s += 1 / 7 + 1e-9
    assert 1 == sum(await asyncio.gather(*(let_in(limited) for _ in range(100))))
    clock.now_s += 100
    assert 7 == sum(await asyncio.gather(*(let_in(limited) for _ in range(100))))
    assert all(0 < wait_s <= 1 / 7 + 1e-9 for wait_s in waits)
    await keys.close()


async def test_too_often_is_429_with_a_time_to_come_again(services: Services, api: httpx.AsyncClient) -> None:
    key = await make_key(services, "limited", "reader", rate_per_s=0.01)
    assert 200 == (await api.get("/v1/corpora", auth=With(key))).status_code
    refused = await api.get("/v1/corpora", auth=With(key))
    assert (429, "rate_limited") == await code(refused)
    assert refused.json()["retryable"] is True
    assert 90 <= int(refused.headers["retry-after"]) <= 100


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_log_says_which_key_committed(services: Services, api: httpx.AsyncClient) -> None:
    """On every way to commit, whoever the request claims to be."""
    await make_corpus(services)
    sync = With(await make_key(services, "sync", "writer"))
    document = f"/v1/corpora/{CORPUS}/documents/a.md"
    await api.post(COMMITS, json={"ops": []}, auth=sync)
    await api.post(COMMITS, json={"ops": [], "actor": "ada"}, auth=sync)
    await api.post(COMMITS, json={"ops": [], "actor": "key:other"}, auth=sync)
    await api.put(document, json={"text": "x"}, auth=sync)
    await api.delete(document, auth=sync, params={"actor": "ada"})
    actors = [entry.actor for entry in await services.catalog.commits(CORPUS, 0, 10)]
    assert ["key:sync", "key:sync:ada", "key:sync:key:other", "key:sync", "key:sync:ada"] == actors


async def test_who_sends_a_request_again_is_no_part_of_it(services: Services, api: httpx.AsyncClient) -> None:
    """A rotated key repeats the old one's commit and gets its answer: the log keeps who was first."""
    await make_corpus(services)
    old, new = [With(await make_key(services, name, "writer")) for name in ("old", "new")]
    sent: dict[str, Any] = {"json": {"ops": []}, "headers": {"Idempotency-Key": "k"}}
    first = (await api.post(COMMITS, auth=old, **sent)).json()
    assert first | {"replayed": True} == (await api.post(COMMITS, auth=new, **sent)).json()
    assert ["key:old"] == [entry.actor for entry in await services.catalog.commits(CORPUS, 0, 10)]


async def test_without_a_key_the_log_takes_no_actor_that_looks_like_one(services: Services) -> None:
    await make_corpus(services)
    async with client_of(services) as api:
        assert 422 == (await api.post(COMMITS, json={"ops": [], "actor": "key:sync"})).status_code
        assert 201 == (await api.post(COMMITS, json={"ops": [], "actor": "ada"})).status_code
