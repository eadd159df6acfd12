"""G8 for keys: with principals fixed to it, a key reads what these may read, on every way there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragver.bootstrap import Services
from tests.support.api import client_of
from tests.support.keys import With, make_key
from tests.support.routes import calls
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put, rename, set_acl

pytestmark = pytest.mark.guarantee(8)

ROOT = f"/v1/corpora/{CORPUS}"
HIDDEN = "layoffs are planned for May"
SHOWN = "everyone has 30 days of leave"


@pytest.fixture
async def services(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """A corpus with a document for everybody and one for the board, which has a version more and was open once."""
    async with open_test_services(database_url, tmp_path / "data") as opened:
        await make_corpus(opened)
        await commit(opened, CORPUS, put("leave.md", SHOWN), put("board/layoffs.md", f"{HIDDEN}, perhaps"))
        await commit(opened, CORPUS, put("board/layoffs.md", HIDDEN, acl=["group:board"]))
        yield opened


@pytest.fixture
async def api(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        yield client


async def reads(api: httpx.AsyncClient, key: With, **claimed: Any) -> dict[str, httpx.Response]:
    """The same secret on every way to a document, now and at the epoch when it was open to all."""
    layoffs = f"{ROOT}/documents/board/layoffs.md"
    question = {"query": "layoffs planned May", "k": 10} | claimed
    exact = {"consistency": {"level": "exact", "epoch": 1}}
    return {
        "document": await api.get(layoffs, auth=key),
        "old document": await api.get(layoffs, params={"at_epoch": 1}, auth=key),
        "list": await api.get(f"{ROOT}/documents", auth=key),
        "old list": await api.get(f"{ROOT}/documents", params={"at_epoch": 1, "prefix": "board/"}, auth=key),
        "versions": await api.get(f"{ROOT}/versions", params={"key": "board/layoffs.md"}, auth=key),
        "feed": await api.get(f"{ROOT}/commits", auth=key),
        "retrieve": await api.post(f"{ROOT}/retrieve", json=question, auth=key),
        "old retrieve": await api.post(f"{ROOT}/retrieve", json=question | exact, auth=key),
    }


def tells(answer: httpx.Response) -> bool:
    """Whether an answer knows of the document more than was asked: its text, or its key where nobody named it."""
    return answer.is_success and ("layoffs" in answer.text)


async def test_g08_a_key_with_fixed_principals_reads_nothing_that_they_may_not(
    services: Services, api: httpx.AsyncClient
) -> None:
    """Not found, not listed, not retrieved; the feed, which tells of everything, is refused."""
    staff = With(await make_key(services, "chat", "reader", principals=["group:staff"]))
    found = await reads(api, staff)
    assert dict.fromkeys(found, False) == {name: tells(answer) for name, answer in found.items()}
    assert {"document": 404, "old document": 404, "list": 200, "old list": 200, "versions": 404, "feed": 403} == {
        name: answer.status_code for name, answer in found.items() if "retrieve" not in name
    }
    assert ["leave.md"] == [one["key"] for one in found["list"].json()["documents"]]
    assert [SHOWN] == [hit["text"] for hit in found["retrieve"].json()["hits"]]


async def test_g08_no_route_that_lets_such_a_key_in_tells_of_what_it_may_not_read(
    services: Services, api: httpx.AsyncClient
) -> None:
    """From the route table: everything that can be read without a body, asked for the hidden document."""
    staff = With(await make_key(services, "chat", "reader", principals=["group:staff"]))
    asked = 0
    for call in calls():
        if call.method == "GET" and call.needs is not None and call.needs.by_principals:
            asked += 1
            path = call.path.replace("{corpus}", CORPUS).replace("{key}", "board/layoffs.md")
            assert not tells(await api.get(path, params={"key": "board/layoffs.md"}, auth=staff)), call
    assert asked >= 5


async def test_g08_what_is_not_there_and_what_is_hidden_look_the_same(
    services: Services, api: httpx.AsyncClient
) -> None:
    staff = With(await make_key(services, "chat", "reader", principals=["group:staff"]))
    for path in ("documents/{}", "documents/{}?at_epoch=1", "versions?key={}"):
        hidden, missing = [
            (await api.get(f"{ROOT}/{path.format(key)}", auth=staff)).text.replace(key, "KEY")
            for key in ("board/layoffs.md", "board/nothing.md")
        ]
        assert missing == hidden


async def test_g08_a_key_reads_what_its_own_principals_may(services: Services, api: httpx.AsyncClient) -> None:
    board = With(await make_key(services, "board", "reader", principals=["group:board"]))
    found = await reads(api, board)
    assert {name: name != "feed" for name in found} == {name: tells(answer) for name, answer in found.items()}


@pytest.mark.parametrize("named", [["group:board"], ["group:staff", "group:board"]])
async def test_g08_a_key_cannot_claim_another_reader_s_labels(
    services: Services, api: httpx.AsyncClient, named: list[str]
) -> None:
    """Refused, not narrowed: an application that asks for what it may not have should hear of it."""
    staff = With(await make_key(services, "chat", "reader", principals=["group:staff"]))
    snapshot = (await api.post(f"{ROOT}/retrieve", json={"query": "leave"}, auth=staff)).json()["snapshot"]
    claims = {
        "retrieve": {"query": "layoffs", "principals": named},
        "validate": {"snapshot": snapshot, "scope": "context", "principals": named},
        "answers/revalidate": {"ids": ["a"], "principals": named},
        "answers/a/revalidate": {"principals": named},
    }
    for path, body in claims.items():
        answer = await api.post(f"{ROOT}/{path}", json=body, auth=staff)
        assert (403, "not_allowed") == (answer.status_code, answer.json()["code"]), path


async def test_g08_validation_has_the_key_s_principals(services: Services, api: httpx.AsyncClient) -> None:
    """What the board retrieved is forbidden to the staff's key, and live for the board's, though neither says who."""
    board = With(await make_key(services, "board", "reader", principals=["group:board"]))
    staff = With(await make_key(services, "staff", "reader", principals=["group:staff"]))
    found = (await api.post(f"{ROOT}/retrieve", json={"query": "layoffs planned May", "k": 1}, auth=board)).json()
    check = {"snapshot": found["snapshot"], "answer": "They are planned [1]."}
    seen = [(await api.post(f"{ROOT}/validate", json=check, auth=key)).json() for key in (board, staff)]
    assert [("pass", "live"), ("reject", "forbidden")] == [
        (one["verdict"], one["citations"][0]["status"]) for one in seen
    ]
    assert seen[1]["citations"][0]["document_key"] is None


async def test_g08_access_of_today_counts_for_documents_too(services: Services, api: httpx.AsyncClient) -> None:
    """Opened, closed, renamed, deleted: the list of now decides, for each epoch that can be read."""
    staff = With(await make_key(services, "staff", "reader", principals=["group:staff"]))
    layoffs, moved = (f"{ROOT}/documents/board/{name}.md" for name in ("layoffs", "plans"))
    await commit(services, CORPUS, set_acl("board/layoffs.md", "group:staff"))
    assert 200 == (await api.get(layoffs, params={"at_epoch": 2}, auth=staff)).status_code
    await commit(services, CORPUS, rename("board/layoffs.md", "board/plans.md"))
    assert [200, 200] == [
        (await api.get(path, params={"at_epoch": epoch}, auth=staff)).status_code
        for path, epoch in ((layoffs, 1), (moved, 4))
    ]
    await commit(services, CORPUS, set_acl("board/plans.md", "group:board"))
    await commit(services, CORPUS, delete("board/plans.md"))
    for epoch in range(1, 6):
        for path in (layoffs, moved):
            assert 404 == (await api.get(path, params={"at_epoch": epoch}, auth=staff)).status_code


async def test_g08_anomaly_without_fixed_principals_a_key_reads_as_whoever_it_says(
    services: Services, api: httpx.AsyncClient
) -> None:
    """The mechanism switched off: the same reads, by the same role, show everything."""
    free = With(await make_key(services, "chat", "reader"))
    found = await reads(api, free, principals=["group:board"])
    assert dict.fromkeys(found, True) == {name: tells(answer) for name, answer in found.items()}
