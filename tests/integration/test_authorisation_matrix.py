"""Every route × every kind of caller, from the application's own route table: a new route is in it by itself.

No call does anything: the corpora that a caller may touch do not exist, and no body is sent. So whoever is let in
learns that something is missing, and whoever is not learns nothing else.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends

from ragver import wire
from ragver.api import access, app
from ragver.api.access import Needs
from ragver.api.routers import health
from ragver.bootstrap import Services
from ragver.types import Role
from tests.support.api import client_of
from tests.support.keys import GARBAGE, With, expire, make_key, unknown
from tests.support.routes import Call, calls
from tests.support.services import make_corpus

OWN, FOREIGN, HIDDEN = "own", "foreign", "hidden"
"""Corpora: that of the keys which are limited to one, another that does not exist, another that does."""
LETS_EVERYBODY_IN = {("GET", "/healthz"), ("GET", "/readyz")}
READS_WITH_A_BODY = ("/retrieve", "/validate", "/revalidate")
"""What is asked by POST and changes nothing; the end of the path."""

Keys = dict[str, wire.KeyCreated]


def refusal(needs: Needs, key: wire.ApiKey, corpus: str | None) -> str | None:
    """Why a good key is refused, in the words of this test and not of the code; None if it is let in."""
    roles = ["reader", "writer", "admin"]
    if roles.index(key.role) < roles.index(needs.role):
        return "role"
    if key.principals is not None and not needs.by_principals:
        return "principals"
    if corpus is not None:
        return None if key.corpora is None or corpus in key.corpora else "corpus"
    return None if key.corpora is None or needs.by_corpora else "corpora"


async def good_keys(services: Services) -> Keys:
    made = {}
    for role in ("reader", "writer", "admin"):
        made[role] = await make_key(services, role, role)
        made[f"{role} of one"] = await make_key(services, f"{role}-of-one", role, corpora=[OWN])
    made["ada"] = await make_key(services, "ada", "reader", principals=["user:ada"])
    made["ada of one"] = await make_key(services, "ada-of-one", "reader", principals=["user:ada"], corpora=[OWN])
    return made


async def bad_keys(services: Services) -> dict[str, str | None]:
    revoked = await make_key(services, "revoked", "admin")
    await services.keys.revoke_key(revoked.id)
    expired = await make_key(services, "expired", "admin")
    await expire(services, expired)
    return {"none": None, "garbage": GARBAGE, "revoked": revoked.secret, "expired": expired.secret} | unknown(revoked)


async def outcome(api: httpx.AsyncClient, call: Call, corpus: str, secret: str | None) -> str:
    """In a word: let in, or the refusal's code."""
    method, path = call.to(corpus)
    response = await api.request(method, path, auth=None if secret is None else With(secret))
    assert response.status_code < 500, (call, response.text)
    if response.status_code not in (401, 403):
        return "let in"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer ")
    return str(response.json()["code"])


async def test_every_route_lets_in_whom_it_says_and_nobody_else(services: Services) -> None:
    """Roles × corpora × fixed principals, on every route."""
    await make_corpus(services, HIDDEN)
    keys = await good_keys(services)
    expected, actual = {}, {}
    async with client_of(services) as api:
        for call in calls():
            for name, key in keys.items():
                named = "{corpus}" in call.path
                for corpus in (OWN, FOREIGN, HIDDEN) if named and key.corpora else (OWN,):
                    cell = f"{call.method} {call.path} by {name} for {corpus}"
                    refused = call.needs and refusal(call.needs, key, corpus if named else None)
                    expected[cell] = "not_allowed" if refused else "let in"
                    actual[cell] = await outcome(api, call, corpus, key.secret)
    assert expected == actual
    assert {"let in", "not_allowed"} == set(expected.values())


async def test_nobody_comes_in_without_a_good_key(services: Services) -> None:
    """No key, none of ours, one that is unknown, revoked or expired: refused by every route but two."""
    await make_corpus(services, HIDDEN)
    keys = await bad_keys(services)
    expected, actual = {}, {}
    async with client_of(services) as api:
        for call in calls():
            for name, secret in keys.items():
                cell = f"{call.method} {call.path} with {name}"
                refused = "key_missing" if secret is None else "key_invalid"
                expected[cell] = refused if (call.method, call.path) not in LETS_EVERYBODY_IN else "let in"
                actual[cell] = await outcome(api, call, HIDDEN, secret)
    assert expected == actual


async def test_whether_a_foreign_corpus_exists_is_not_told(services: Services) -> None:
    """The same refusal, word for word, for one that is there and one that is not."""
    await make_corpus(services, HIDDEN)
    key = await make_key(services, "admin-of-one", "admin", corpora=[OWN])
    async with client_of(services) as api:
        for call in calls():
            if "{corpus}" in call.path:
                there, gone = [
                    (await api.request(*call.to(corpus), auth=With(key))).text.replace(corpus, "X")
                    for corpus in (HIDDEN, FOREIGN)
                ]
                assert gone == there
        made = [await api.post("/v1/corpora", json={"name": name}, auth=With(key)) for name in (HIDDEN, FOREIGN)]
        assert [403, 403] == [answer.status_code for answer in made]
        assert [] == (await api.get("/v1/corpora", auth=With(key))).json()["corpora"]


def test_routes_ask_for_enough() -> None:
    """What changes something is not for readers; what a key could reach beyond its corpus is for administrators."""
    for call in calls():
        if call.needs is None:
            assert (call.method, call.path) in LETS_EVERYBODY_IN
        elif call.method != "GET" and not call.path.endswith(READS_WITH_A_BODY):
            assert call.needs.role is not Role.READER, call
        if call.path.startswith("/v1/keys"):
            assert call.needs is not None
            assert (Role.ADMIN, False) == (call.needs.role, call.needs.by_corpora)


async def test_no_body_claims_principals_that_the_key_does_not_have(services: Services) -> None:
    """Routes found in the OpenAPI document by their bodies, asked with the example there and somebody else's label."""
    document = app.create_app(nullcontext, 2**20).openapi()  # type: ignore[arg-type]
    ada = With(await make_key(services, "ada", "reader", principals=["user:ada"]))
    answers = {}
    async with client_of(services) as api:
        for call in calls():
            body = _body_schema(document, call)
            if "principals" in body.get("properties", {}) and body["title"] != "KeyCreate":
                claim = (body.get("examples") or [{}])[0] | {"principals": ["user:bob"]}
                answers[call.path] = (await api.request(*call.to(OWN), json=claim, auth=ada)).json()
    assert {"/v1/corpora/{corpus}/retrieve", "/v1/corpora/{corpus}/validate"} <= answers.keys()
    assert dict.fromkeys(answers, ("not_allowed", True)) == {
        path: (answer["code"], "'user:bob' is not among them" in answer["detail"]) for path, answer in answers.items()
    }


def _body_schema(document: dict[str, Any], call: Call) -> dict[str, Any]:
    operation = document["paths"][call.path][call.method.lower()]
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    found: dict[str, Any] = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
    return found


@pytest.mark.parametrize("dependencies", [[], [Depends(lambda: None)], [access.OPEN], [access.READER, access.ADMIN]])
def test_an_application_with_a_route_that_says_nothing_does_not_start(
    dependencies: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor with one under /v1 that lets everybody in, or one that says two things."""
    forgotten = APIRouter(prefix="/v1")
    forgotten.get("/forgotten", dependencies=dependencies)(lambda: None)
    monkeypatch.setattr(health, "router", forgotten)
    with pytest.raises(TypeError, match="/v1/forgotten does not say whom it lets in"):
        app.create_app(nullcontext, 2**20)  # type: ignore[arg-type]


def test_the_api_document_says_that_a_key_is_asked_for() -> None:
    document = app.create_app(nullcontext, 2**20).openapi()  # type: ignore[arg-type]
    assert {"type": "http", "scheme": "bearer"}.items() <= document["components"]["securitySchemes"]["key"].items()
    for call in calls():
        operation = document["paths"][call.path][call.method.lower()]
        assert ([] if call.needs is None else [{"key": []}]) == operation.get("security", [])
