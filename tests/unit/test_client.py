"""The client sends what the API expects and turns whatever comes back into models or errors."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ragver import wire
from ragver.client import NO_RETRIES, ApiError, AsyncClient, Retries, ServerUnreachable, Verdict
from ragver.client.events import data_of
from ragver.errors import RagverError
from ragver.types import Decision

NOW = datetime(2024, 2, 29, tzinfo=UTC)
RESULT = wire.CommitResult(epoch=7, committed_at=NOW, replayed=False, fenced=False, documents=[])
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler) -> AsyncClient:
    return AsyncClient("http://ragver.test", transport=httpx.MockTransport(handler), retries=NO_RETRIES)


def recording(requests: list[httpx.Request], answer: str, **headers: str) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, text=answer, headers=headers)

    return handler


def answering(status: int, text: str, content_type: str = "application/json") -> Handler:
    return lambda request: httpx.Response(status, text=text, headers={"Content-Type": content_type})


async def test_a_commit_sends_its_operations_key_and_fence() -> None:
    requests: list[httpx.Request] = []
    put = wire.Put(op="put", key="a", text="A")
    async with client(recording(requests, RESULT.model_dump_json())) as api:
        result = await api.commit("handbook", [put], reason="why", actor="ada", idempotency_key="k1", fence=True)
    (request,) = requests

    assert RESULT == result
    assert "http://ragver.test/v1/corpora/handbook/commits?fence=true" == request.url
    assert "k1" == request.headers["Idempotency-Key"]
    operations = [{"op": "put", "key": "a", "text": "A"}]
    assert {"ops": operations, "reason": "why", "actor": "ada"} == json.loads(request.content)


async def test_the_servers_time_by_stage_adds_up() -> None:
    stages = {"ledger": 1.0}
    answer = recording([], RESULT.model_dump_json(), **{"Server-Timing": "split;dur=250.000, ledger;dur=500.000"})
    async with client(answer) as api:
        await api.commit("handbook", [], stages=stages)

    assert {"split": 0.25, "ledger": 1.5} == stages


async def test_without_server_timing_no_stage_is_made_up() -> None:
    stages: dict[str, float] = {}
    async with client(recording([], RESULT.model_dump_json())) as api:
        await api.commit("handbook", [], stages=stages)

    assert {} == stages


@pytest.mark.parametrize(("if_version", "header"), [(0, ("if-none-match", "*")), (3, ("if-match", '"3"'))])
async def test_a_version_becomes_the_precondition(if_version: int, header: tuple[str, str]) -> None:
    requests: list[httpx.Request] = []
    async with client(recording(requests, RESULT.model_dump_json())) as api:
        await api.put_document("handbook", "a", wire.DocumentInput(text="A"), if_version=if_version)

    assert header in requests[0].headers.items()


@given(key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
async def test_any_key_arrives_as_it_is(key: str) -> None:
    """Slashes, dots, question marks and per cent signs included: nothing of a key is syntax."""
    requests: list[httpx.Request] = []
    async with client(recording(requests, RESULT.model_dump_json())) as api:
        await api.delete_document("handbook", key)

    assert f"/v1/corpora/handbook/documents/{key}" == requests[0].url.path
    assert not requests[0].url.query


async def test_a_problem_becomes_an_error_with_its_code() -> None:
    problem = wire.Problem(
        type="urn:x", title="T", status=410, code="snapshot_expired", retryable=False, detail="ask for a later one"
    )
    async with client(answering(410, problem.model_dump_json(), "application/problem+json")) as api:
        with pytest.raises(ApiError) as caught:
            await api.corpus("handbook")

    assert ("snapshot_expired", 410, False) == (caught.value.code, caught.value.status, caught.value.retryable)
    assert "ask for a later one" == caught.value.detail
    assert isinstance(caught.value, RagverError)


@pytest.mark.parametrize(
    ("status", "text"), [(200, "<html>hello</html>"), (502, "Bad gateway"), (404, "{}"), (200, ""), (302, "moved")]
)
async def test_an_answer_that_is_not_ragvers_is_an_error(status: int, text: str) -> None:
    async with client(answering(status, text)) as api:
        with pytest.raises(ApiError, match="ragver server") as caught:
            await api.corpora()

    assert ("unexpected_answer", status) == (caught.value.code, caught.value.status)


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.ReadError(""), httpx.ReadTimeout("slow")])
async def test_no_answer_is_an_error_that_names_the_server(failure: httpx.TransportError) -> None:
    def failing(request: httpx.Request) -> httpx.Response:
        raise failure

    async with client(failing) as api:
        with pytest.raises(ServerUnreachable, match=r"http://ragver\.test") as caught:
            await api.corpora()

    assert caught.value.retryable


async def test_a_client_that_was_closed_says_so() -> None:
    async with client(answering(200, "")) as api:
        pass
    with pytest.raises(ApiError, match="closed"):
        await api.corpora()
    with pytest.raises(ApiError, match="closed"):
        await anext(api.follow("handbook"))


async def test_a_server_that_is_not_ready_is_an_answer() -> None:
    away = wire.Readiness(status="unavailable", ledger="ledger_unavailable", index="ok")
    async with client(answering(503, away.model_dump_json())) as api:
        assert away == await api.ready()


async def test_documents_come_page_after_page() -> None:
    def pages(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("cursor", "0"))
        summary = wire.DocumentSummary(key=f"d{number}", version=1, title=None, uri=None, born_epoch=1)
        page = wire.DocumentPage(documents=[summary], next_cursor=None if number == 2 else str(number + 1))
        return httpx.Response(200, text=page.model_dump_json())

    async with client(pages) as api:
        keys = [document.key async for document in api.each_document("handbook")]

    assert ["d0", "d1", "d2"] == keys


async def test_following_gives_each_commit_as_it_comes() -> None:
    entries = [
        wire.CommitEntry(epoch=epoch, committed_at=NOW, actor=None, reason=reason, idempotency_key=None, documents=[])
        for epoch, reason in enumerate(["one", "two\u2028lines"], 1)
    ]
    feed = ": still here\n\n" + "".join(
        f"id: {entry.epoch}\nevent: commit\ndata: {entry.model_dump_json()}\n\n" for entry in entries
    )
    requests: list[httpx.Request] = []
    async with client(recording(requests, feed)) as api:
        followed = [entry async for entry in api.follow("handbook", since=4)]

    assert entries == followed
    assert "4" == requests[0].url.params["since"]
    assert "text/event-stream" == requests[0].headers["Accept"]


async def test_following_what_is_not_there_is_an_error() -> None:
    problem = wire.Problem(type="u", title="T", status=404, code="corpus_not_found", retryable=False, detail="none")
    async with client(answering(404, problem.model_dump_json())) as api:
        with pytest.raises(ApiError) as caught:
            _ = [entry async for entry in api.follow("nowhere")]

    assert "corpus_not_found" == caught.value.code


async def test_fields_of_a_newer_server_are_passed_over() -> None:
    """At any depth; what is sent stays strict."""
    newer = json.loads(RESULT.model_dump_json()) | {"weather": "fine"}
    newer["documents"] = [
        {
            "key": "a",
            "version": 1,
            "status": "created",
            "chunks_added": 1,
            "chunks_kept": 0,
            "chunks_removed": 0,
            "x": 1,
        }
    ]
    async with client(answering(200, json.dumps(newer))) as api:
        assert 1 == (await api.commit("handbook", [])).documents[0].version

    with pytest.raises(ValidationError):
        wire.CommitRequest.model_validate({"ops": [], "weather": "fine"})


async def test_a_body_can_be_given_whole_or_in_parts() -> None:
    requests: list[httpx.Request] = []
    answer = wire.RetrieveResponse(snapshot="s", epoch=1, head=1, applied_epoch=1, tail=0, hits=[]).model_dump_json()
    async with client(recording(requests, answer)) as api:
        await api.retrieve("handbook", wire.RetrieveRequest(query="how?", k=3, principals=["group:hr"]))
        await api.retrieve("handbook", "how?", k=3, principals=["group:hr"])
        await api["handbook"].retrieve("how?", k=3, principals=["group:hr"])

    assert 1 == len({request.url for request in requests})
    assert [{"query": "how?", "k": 3, "principals": ["group:hr"]}] * 3 == [json.loads(one.content) for one in requests]


async def test_what_does_not_fit_is_refused_before_anything_is_sent() -> None:
    requests: list[httpx.Request] = []
    async with client(recording(requests, "")) as api:
        for call in (
            api.retrieve("handbook", "how?", k=0),
            api.retrieve("handbook"),
            api.retrieve("handbook", wire.RetrieveRequest(query="how?"), k=3),
            api.validate("handbook", "token"),
            api["handbook"].put("a"),
            api["handbook"].put("a", "text \ud800"),
            api.create_corpus("no/name"),
            api.commit("handbook", [], idempotency_key="schlüssel"),
        ):
            with pytest.raises(ApiError) as caught:
                await call
            assert ("invalid_request", 0, False) == (caught.value.code, caught.value.status, caught.value.retryable)

    assert [] == requests


async def test_an_api_key_goes_with_every_request_and_shows_nowhere() -> None:
    requests: list[httpx.Request] = []
    transport = httpx.MockTransport(recording(requests, '{"corpora": []}'))
    async with AsyncClient("http://ragver.test", api_key="rv_secret", transport=transport) as api:
        await api.corpora()

    assert "Bearer rv_secret" == requests[0].headers["Authorization"]
    assert "AsyncClient('http://ragver.test', closed)" == repr(api)


@pytest.mark.parametrize("url", ["ragver.test", "ftp://ragver.test", "http://", "http://ragver.test:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ApiError, match=r"URL|address"):
        AsyncClient(url)


async def test_a_verdict_holds_from_before_it_was_asked_for() -> None:
    asked: list[float] = []
    said = wire.ValidateResponse(
        verdict=Decision.PASS, epoch=1, snapshot_epoch=1, checked_at=NOW, valid_for_ms=2_000, citations=[]
    )

    def slow(request: httpx.Request) -> httpx.Response:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise httpx.ReadError("lost")
        return httpx.Response(200, text=said.model_dump_json())

    begun = time.monotonic()
    transport = httpx.MockTransport(slow)
    async with AsyncClient("http://ragver.test", transport=transport, retries=Retries(2, 0.0, 0.0)) as api:
        verdict = await api.validate("handbook", "token", answer="so [1]")

    first, second = asked
    assert begun <= first <= verdict.deadline_s - 2.0 <= second
    assert verdict.still_valid()
    assert 0 < verdict.remaining_s <= 2.0


def test_a_verdict_that_was_not_received_is_not_valid() -> None:
    made = Verdict(verdict=Decision.PASS, epoch=1, snapshot_epoch=1, checked_at=NOW, valid_for_ms=2_000, citations=[])

    assert not made.still_valid()


@given(
    payloads=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)),
    cuts=st.lists(st.integers(0, 2000)),
    end=st.sampled_from(["\n", "\r\n"]),
)
async def test_events_survive_any_cut_of_the_stream(payloads: list[str], cuts: list[int], end: str) -> None:
    stream = "".join(f"id: 1{end}data: {payload}{end}{end}: comment{end}{end}" for payload in payloads).encode()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})

    async def pieces() -> AsyncIterator[bytes]:
        for start, stop in pairwise(edges):
            yield stream[start:stop]

    assert payloads == [data.decode() async for data in data_of(pieces())]
