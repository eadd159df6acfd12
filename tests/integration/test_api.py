"""The HTTP surface: statuses, headers, problem documents, the feed."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ragver.api.app import create_app
from ragver.bootstrap import Services
from tests.support.api import client_of, served
from tests.support.streaming import following

HANDBOOK = {"name": "handbook", "filterable": {"team": "keyword"}}
DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(40), [])
AT_EPOCH_9 = b'{"query": "x", "consistency": {"level": "exact", "epoch": 9}}'
BY_COLOUR = b'{"query": "x", "filter": {"field": "colour", "eq": 1}}'
LEAVE = {"text": "# Leave\n\nEveryone has 30 days of leave.", "title": "Leave", "metadata": {"team": "hr"}}


@pytest.fixture
async def api(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services) as client:
        yield client


@pytest.fixture
async def handbook(api: httpx.AsyncClient) -> httpx.AsyncClient:
    assert (await api.post("/v1/corpora", json=HANDBOOK)).status_code == 201
    return api


def code(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document that is one in every respect."""
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code
    assert problem["detail"]
    assert problem["retryable"] is (response.status_code == 503)
    return response.status_code, problem["code"]


async def test_corpus_is_made_shown_listed_and_removed(api: httpx.AsyncClient) -> None:
    """A corpus begins empty at epoch 0 and is gone after its deletion."""
    made = (await api.post("/v1/corpora", json=HANDBOOK)).json()
    assert (made["head"], made["applied_epoch"], made["horizon"], made["documents"], made["chunks"]) == (0, 0, 0, 0, 0)
    assert made["embedding"]["provider"] == "hashing"
    assert (await api.get("/v1/corpora/handbook")).json() == made
    assert (await api.get("/v1/corpora")).json() == {"corpora": [made]}
    assert code(await api.post("/v1/corpora", json=HANDBOOK)) == (409, "corpus_exists")
    assert (await api.delete("/v1/corpora/handbook")).status_code == 204
    assert code(await api.get("/v1/corpora/handbook")) == (404, "corpus_not_found")


async def test_document_is_put_read_edited_and_deleted(handbook: httpx.AsyncClient) -> None:
    """The one-document routes carry versions as ETags and honour If-Match."""
    path = "/v1/corpora/handbook/documents/policies/leave.md"
    created = await handbook.put(path, json=LEAVE)
    assert (created.status_code, created.headers["etag"], created.json()["epoch"]) == (201, '"1"', 1)
    read = await handbook.get(path)
    assert read.headers["etag"] == '"1"'
    assert read.json()["text"] == LEAVE["text"]
    assert [chunk["text"] for chunk in read.json()["chunks"]] == [LEAVE["text"]]
    edited = await handbook.put(path, json={"text": "28 days."}, headers={"If-Match": '"1"'})
    assert (edited.status_code, edited.headers["etag"]) == (200, '"2"')
    assert code(await handbook.delete(path, headers={"If-Match": '"1"'})) == (412, "precondition_failed")
    assert code(await handbook.put(path, json=LEAVE, headers={"If-None-Match": "*"})) == (412, "precondition_failed")
    deleted = await handbook.delete(path, headers={"If-Match": '"2"'})
    assert deleted.json()["documents"][0]["status"] == "deleted"
    assert code(await handbook.get(path)) == (404, "document_not_found")
    assert (await handbook.get(path, params={"at_epoch": 1})).json()["text"] == LEAVE["text"]
    versions = (await handbook.get("/v1/corpora/handbook/versions", params={"key": "policies/leave.md"})).json()
    assert [(v["version"], v["born_epoch"], v["died_epoch"], v["cause"]) for v in versions["versions"]] == [
        (1, 1, 2, "superseded"),
        (2, 2, 3, "deleted"),
    ]


async def test_race_is_caught(handbook: httpx.AsyncClient) -> None:
    """The story: retrieved, deleted meanwhile, and the answer that cites it is rejected."""
    await handbook.put("/v1/corpora/handbook/documents/leave.md", json=LEAVE)
    found = (await handbook.post("/v1/corpora/handbook/retrieve", json={"query": "days of leave", "k": 3})).json()
    (hit,) = found["hits"]
    assert (hit["ref"], hit["text"], hit["document"]["key"]) == (1, LEAVE["text"], "leave.md")
    question = {"snapshot": found["snapshot"], "answer": "You have 30 days [1]."}
    before = (await handbook.post("/v1/corpora/handbook/validate", json=question)).json()
    assert (before["verdict"], before["citations"][0]["status"]) == ("pass", "live")
    assert before["valid_for_ms"] == 2000
    await handbook.delete("/v1/corpora/handbook/documents/leave.md")
    after = (await handbook.post("/v1/corpora/handbook/validate", json=question)).json()
    assert (after["verdict"], after["citations"][0]["status"], after["citations"][0]["died_epoch"]) == (
        "reject",
        "deleted",
        2,
    )
    assert (after["epoch"], after["snapshot_epoch"]) == (2, 1)


async def test_commit_answers_with_its_epoch_and_timing(handbook: httpx.AsyncClient) -> None:
    """A commit of several operations takes one epoch; the same key again is the same commit."""
    body = {
        "ops": [
            {"op": "put", "key": "a.md", **LEAVE},
            {"op": "put", "key": "b.md", "text": ""},
            {"op": "rename", "key": "b.md", "new_key": "c.md"},
            {"op": "set_acl", "key": "a.md", "acl": ["group:hr"]},
        ],
        "reason": "a start",
        "actor": "ada",
    }
    first = await handbook.post("/v1/corpora/handbook/commits", json=body, headers={"Idempotency-Key": "k"})
    assert (first.status_code, first.json()["epoch"], first.json()["replayed"]) == (201, 1, False)
    assert "ledger;dur=" in first.headers["server-timing"]
    again = await handbook.post("/v1/corpora/handbook/commits", json=body, headers={"Idempotency-Key": "k"})
    assert again.json() == first.json() | {"replayed": True}
    other = await handbook.post("/v1/corpora/handbook/commits", json={"ops": []}, headers={"Idempotency-Key": "k"})
    assert code(other) == (422, "idempotency_key_reused")
    empty = await handbook.post("/v1/corpora/handbook/commits", json={"ops": []})
    assert (empty.status_code, empty.json()["epoch"]) == (201, 2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"ops": [{"op": "delete", "key": "missing"}]}, (404, "document_not_found")),
        ({"ops": [{"op": "rename", "key": "missing", "new_key": "b"}]}, (404, "document_not_found")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "if_version": 7}]}, (409, "version_conflict")),
        ({"ops": [{"op": "put", "key": "a", "text": "nul \x00"}]}, (422, "invalid_text")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "metadata": {"team": 1}}]}, (422, "field_invalid")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "metadata": {"n": "\x00"}}]}, (422, "invalid_text")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "metadata": {"n": DEEP}}]}, (422, "field_invalid")),
        ({"ops": [{"op": "put", "key": "a"}]}, (422, "invalid_request")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "chunks": []}]}, (422, "invalid_request")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "unknown": 1}]}, (422, "invalid_request")),
        ({"ops": [{"op": "burn", "key": "a"}]}, (422, "invalid_request")),
        ({"ops": [{"op": "put", "key": "", "text": "x"}]}, (422, "invalid_request")),
        ({"ops": [{"op": "put", "key": "a", "text": "x", "acl": []}]}, (422, "invalid_request")),
        ({"ops": [{"op": "put", "key": "a", "chunks": [{"text": "x", "vector": [1.0]}]}]}, (422, "vector_invalid")),
        ({"ops": [{"op": "put", "key": "a", "text": "x" * (10 * 2**20 + 1)}]}, (413, "document_too_large")),
    ],
)
async def test_bad_commit_is_refused_whole(
    handbook: httpx.AsyncClient, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    """A clear error, and nothing of the commit is there: no document, no epoch."""
    good = {"op": "put", "key": "good", "text": "good"}
    response = await handbook.post("/v1/corpora/handbook/commits", json={"ops": [good, *body["ops"]]})
    assert code(response) == expected
    corpus = (await handbook.get("/v1/corpora/handbook")).json()
    assert (corpus["head"], corpus["documents"]) == (0, 0)


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("corpora/handbook/commits", b'{"ops": [{"op": "put", "key": "a", "text": "\\ud800"}]}', (422, "invalid_text")),
        ("corpora/handbook/commits", b"{", (422, "invalid_request")),
        ("corpora/handbook/commits", b"\xff\xfe", (422, "invalid_request")),
        ("corpora/handbook/retrieve", b'{"vector": [NaN]}', (422, "invalid_request")),
        ("corpora/handbook/retrieve", b'{"vector": [1e999]}', (422, "invalid_request")),
        ("corpora/handbook/retrieve", b'{"vector": [1.0]}', (422, "vector_invalid")),
        ("corpora/handbook/retrieve", b'{"query": "x", "consistency": {"level": "psychic"}}', (422, "invalid_request")),
        ("corpora/handbook/retrieve", b'{"query": "x", "consistency": {"level": "exact"}}', (422, "invalid_request")),
        ("corpora/handbook/retrieve", AT_EPOCH_9, (422, "epoch_ahead")),
        ("corpora/handbook/retrieve", b'{"query": "x", "as_of": "2999-01-01T00:00:00Z"}', (422, "time_ahead")),
        ("corpora/handbook/retrieve", BY_COLOUR, (422, "filter_invalid")),
        ("corpora/handbook/retrieve", b'{"query": "x", "k": 0}', (422, "invalid_request")),
        ("corpora/handbook/retrieve", b'{"query": "x", "filters": {}}', (422, "invalid_request")),
        ("corpora/nowhere/retrieve", b'{"query": "x"}', (404, "corpus_not_found")),
        ("corpora/nowhere/validate", b'{"snapshot": "x", "citations": []}', (404, "corpus_not_found")),
        ("corpora/handbook/validate", b'{"snapshot": "forged", "citations": []}', (400, "snapshot_invalid")),
        ("corpora/handbook/validate", b'{"snapshot": "forged"}', (422, "invalid_request")),
        ("corpora", b'{"name": "no spaces"}', (422, "invalid_request")),
        ("corpora", b'{"name": "x", "embedding": {"provider": "openai"}}', (422, "invalid_request")),
        ("nothing/here", b"{}", (404, "route_not_found")),
    ],
)  # fmt: skip
async def test_bad_request_gets_a_clear_problem(
    handbook: httpx.AsyncClient, path: str, content: bytes, expected: tuple[int, str]
) -> None:
    """Each kind of bad input has its code; none is a server error."""
    response = await handbook.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"})
    assert code(response) == expected


async def test_body_above_the_limit_is_refused(services: Services) -> None:
    """Whether announced or streamed, and before it is parsed."""
    app = create_app(lambda: served(services), request_bytes_max=1000)
    app.state.services = services
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        announced = await client.post("/v1/corpora", content=b"x" * 1001)
        assert code(announced) == (413, "request_too_large")

        async def stream() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        assert code(await client.post("/v1/corpora", content=stream())) == (413, "request_too_large")


async def test_documents_are_listed_page_by_page_at_one_epoch(handbook: httpx.AsyncClient) -> None:
    """Later pages show the epoch of the first, whatever is committed meanwhile."""
    ops = [{"op": "put", "key": f"{folder}/{n}.md", "text": "x"} for folder in ("a", "b") for n in range(3)]
    await handbook.post("/v1/corpora/handbook/commits", json={"ops": ops})
    path = "/v1/corpora/handbook/documents"
    first = (await handbook.get(path, params={"limit": 4})).json()
    await handbook.delete(f"{path}/b/2.md")
    second = (await handbook.get(path, params={"limit": 4, "cursor": first["next_cursor"]})).json()
    keys = [document["key"] for page in (first, second) for document in page["documents"]]
    assert keys == ["a/0.md", "a/1.md", "a/2.md", "b/0.md", "b/1.md", "b/2.md"]
    assert second["next_cursor"] is None
    prefixed = (await handbook.get(path, params={"prefix": "b/"})).json()
    assert [document["key"] for document in prefixed["documents"]] == ["b/0.md", "b/1.md"]
    assert code(await handbook.get(path, params={"cursor": "?"})) == (422, "invalid_request")


async def test_feed_pages_and_follows(services: Services, handbook: httpx.AsyncClient) -> None:
    """As JSON in pages, as events without end: each commit once, in order, from where the client was."""
    for number in range(3):
        await handbook.post("/v1/corpora/handbook/commits", json={"ops": [], "reason": f"number {number}"})
    page = (await handbook.get("/v1/corpora/handbook/commits", params={"since": 1, "limit": 1})).json()
    assert [(entry["epoch"], entry["reason"]) for entry in page["commits"]] == [(2, "number 1")]

    async with following(services, "/v1/corpora/handbook/commits", since=1) as feed:
        received = [await feed.next(), await feed.next()]
        await handbook.post("/v1/corpora/handbook/commits", json={"ops": [], "reason": "later"})
        received.append(await feed.next())
    assert [("2", "commit"), ("3", "commit"), ("4", "commit")] == [(event.id, event.name) for event in received]
    assert [2, 3, 4] == [json.loads(event.data)["epoch"] for event in received]
    async with following(services, "/v1/corpora/handbook/commits", last_event_id=3) as feed:
        assert "4" == (await feed.next()).id


async def test_health_readiness_and_metrics(handbook: httpx.AsyncClient) -> None:
    """Alive, ready with both stores, and counting."""
    assert (await handbook.get("/healthz")).json() == {"status": "ok"}
    assert (await handbook.get("/readyz")).json() == {"status": "ok", "ledger": "ok", "index": "ok"}
    await handbook.put("/v1/corpora/handbook/documents/leave.md", json=LEAVE)
    assert 'ragver_commit_stage_seconds_count{stage="ledger"} 1.0' in (await handbook.get("/metrics")).text


async def test_metadata_that_only_looks_like_a_nul_is_kept(handbook: httpx.AsyncClient) -> None:
    """A backslash and `u0000` as characters are text like any other."""
    metadata = {"pattern": "\\u0000", "nested": [{"deep": "\\x00"}]}
    path = "/v1/corpora/handbook/documents/a.md"
    assert (await handbook.put(path, json={"text": "x", "metadata": metadata})).status_code == 201
    assert (await handbook.get(path)).json()["metadata"] == metadata


async def test_an_epoch_is_pinned_and_let_go(handbook: httpx.AsyncClient) -> None:
    """By its number or by a snapshot, and by either way to name a pin."""
    await handbook.put("/v1/corpora/handbook/documents/leave.md", json=LEAVE)
    token = (await handbook.post("/v1/corpora/handbook/retrieve", json={"query": "leave"})).json()["snapshot"]
    pins = "/v1/corpora/handbook/pins"
    first = await handbook.post(pins, json={"epoch": 0, "ttl_s": 60})
    second = await handbook.post(pins, json={"snapshot": token, "ttl_s": 60})
    assert (201, 201) == (first.status_code, second.status_code)
    assert {"pin_id", "epoch", "expires_at"} == first.json().keys()
    assert [0, 1] == [pin["epoch"] for pin in (await handbook.get(pins)).json()["pins"]]
    assert 204 == (await handbook.delete(f"{pins}/{first.json()['pin_id']}")).status_code
    assert 204 == (await handbook.delete(pins, params={"pin_id": second.json()["pin_id"]})).status_code
    assert (404, "pin_not_found") == code(await handbook.delete(f"{pins}/{first.json()['pin_id']}"))
    assert (422, "epoch_ahead") == code(await handbook.post(pins, json={"epoch": 9, "ttl_s": 60}))
    for body in (
        {"epoch": 1},
        {"ttl_s": 60},
        {"epoch": 1, "snapshot": token, "ttl_s": 60},
        {"epoch": 1, "ttl_s": 10**9},
    ):
        assert 422 == (await handbook.post(pins, json=body)).status_code


async def test_a_document_is_erased_and_its_receipt_is_kept(handbook: httpx.AsyncClient) -> None:
    """The receipt can be had again, listed and verified; what was there before it is gone, and says so."""
    await handbook.put("/v1/corpora/handbook/documents/leave.md", json=LEAVE, params={"actor": "ada", "reason": "new"})
    erasures = "/v1/corpora/handbook/erasures"
    made = await handbook.post(erasures, json={"keys": ["leave.md"], "reason": "asked for", "actor": "dpo"})
    receipt = made.json()
    assert (201, "complete", 2) == (made.status_code, receipt["state"], receipt["epoch"])
    assert [("erased", True)] * 3 == [(store["state"], bool(store["verified_by"])) for store in receipt["stores"]]
    assert receipt == (await handbook.get(f"{erasures}/{receipt['id']}")).json()
    assert [receipt] == (await handbook.get(erasures)).json()["erasures"]
    assert (await handbook.post(f"{erasures}/{receipt['id']}/verification")).json()["erased"]
    assert receipt["public_key"] == (await handbook.get("/v1/receipt-key")).json()["public_key"]
    document = "/v1/corpora/handbook/documents/leave.md"
    assert (410, "document_erased") == code(await handbook.get(document, params={"at_epoch": 1}))
    assert (404, "document_not_found") == code(await handbook.get(document))
    log = (await handbook.get("/v1/corpora/handbook/commits")).json()["commits"]
    assert [("ada", "new"), ("dpo", "asked for")] == [(entry["actor"], entry["reason"]) for entry in log]
    assert (404, "document_not_found") == code(await handbook.post(erasures, json={"keys": ["x"], "reason": "x"}))
    assert (404, "erasure_not_found") == code(await handbook.get(f"{erasures}/999"))
