"""The client repeats what can be repeated, no longer than it may, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.client import NO_RETRIES, ApiError, AsyncClient, Client, Retries, ServerUnreachable

Step = httpx.Response | Exception
RESULT = wire.CommitResult(
    epoch=7, committed_at=datetime(2024, 2, 29, tzinfo=UTC), replayed=False, fenced=False, documents=[]
)
AT_ONCE = Retries(first_wait_s=0.0, wait_s_max=0.0)


def problem(status: int, *, retryable: bool, headers: dict[str, str] | None = None) -> httpx.Response:
    said = wire.Problem(type="u", title="T", status=status, code="busy", retryable=retryable, detail="try again")
    return httpx.Response(status, text=said.model_dump_json(), headers=headers)


def done(model: wire.Body = RESULT) -> httpx.Response:
    return httpx.Response(200, text=model.model_dump_json())


class Script:
    """A server that answers, or does not, as it is told, one step a request."""

    def __init__(self, *steps: Step) -> None:
        self._steps: Iterator[Step] = iter(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = next(self._steps)
        if isinstance(step, Exception):
            raise step
        return step

    def client(self, retries: Retries = AT_ONCE, answer_s_max: float = 60.0) -> Client:
        transport = httpx.MockTransport(self)
        return Client("http://ragver.test", transport=transport, retries=retries, answer_s_max=answer_s_max)


LOST = httpx.ReadError("reset")
REFUSED = httpx.ConnectError("refused")


@pytest.mark.parametrize("failure", [LOST, REFUSED, httpx.ReadTimeout("slow"), problem(503, retryable=True)])
def test_a_commit_is_repeated_with_the_same_idempotency_key(failure: Step) -> None:
    """Nobody needs to think of keys for a lost answer not to become a second commit."""
    script = Script(failure, failure, done())
    with script.client() as api:
        assert RESULT == api.commit("handbook", [])

    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert 3 == len(keys)
    assert 1 == len(set(keys))


def test_two_commits_have_two_keys() -> None:
    script = Script(done(), done())
    with script.client() as api:
        api.delete_document("handbook", "a")
        api.delete_document("handbook", "a")

    first, second = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first != second


@pytest.mark.parametrize(
    "call",
    [
        lambda api: api.corpora(),
        lambda api: api.commit("c", []),
        lambda api: api["c"].put("a", "A"),
        lambda api: api["c"].delete("a"),
        lambda api: api["c"].retrieve("how?"),
        lambda api: api["c"].validate("token", answer="so [1]"),
        lambda api: api.create_corpus("c", exist_ok=True),
    ],
)
def test_what_does_no_harm_twice_is_repeated_when_no_answer_came(call: Callable[[Client], object]) -> None:
    script = Script(LOST, problem(404, retryable=False))
    with script.client() as api, pytest.raises(ApiError) as caught:
        call(api)

    assert 404 == caught.value.status
    assert 2 == len(script.requests)


@pytest.mark.parametrize("call", [lambda api: api.create_corpus("c"), lambda api: api.delete_corpus("c")])
@pytest.mark.parametrize("failure", [LOST, httpx.ReadTimeout("slow"), problem(503, retryable=True)])
def test_what_may_have_been_done_is_not_done_again(call: Callable[[Client], object], failure: Step) -> None:
    script = Script(failure)
    with script.client() as api, pytest.raises(ApiError):
        call(api)

    assert 1 == len(script.requests)


@pytest.mark.parametrize("failure", [REFUSED, httpx.ConnectTimeout("slow"), problem(429, retryable=True)])
def test_what_was_not_done_is_repeated_whatever_it_is(failure: Step) -> None:
    script = Script(failure, httpx.Response(204))
    with script.client() as api:
        api.delete_corpus("handbook")

    assert 2 == len(script.requests)


def test_what_cannot_help_is_not_tried() -> None:
    script = Script(problem(422, retryable=False))
    with script.client() as api, pytest.raises(ApiError):
        api.corpora()

    assert 1 == len(script.requests)


def test_patience_ends_with_the_last_failure() -> None:
    script = Script(REFUSED, REFUSED, LOST)
    with script.client(Retries(3, 0.0, 0.0)) as api, pytest.raises(ServerUnreachable, match="reset"):
        api.corpora()

    assert 3 == len(script.requests)


def test_no_retries_is_one_attempt() -> None:
    script = Script(REFUSED)
    with script.client(NO_RETRIES) as api, pytest.raises(ServerUnreachable):
        api.corpora()


def test_a_server_that_asks_for_more_time_than_there_is_is_not_asked_again() -> None:
    script = Script(problem(429, retryable=True, headers={"Retry-After": "60"}))
    with script.client(answer_s_max=5.0) as api, pytest.raises(ApiError) as caught:
        api.corpora()

    assert 60.0 == caught.value.retry_after_s


def asked_for_s(header: str) -> float:
    script = Script(problem(503, retryable=True, headers={"Retry-After": header}))
    with script.client(NO_RETRIES) as api, pytest.raises(ApiError) as caught:
        api.corpora()
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_both_forms_of_retry_after_are_understood() -> None:
    """A number of seconds, or a date."""
    now = datetime.now(UTC)

    assert 7.0 == asked_for_s("7")
    assert 3000 < asked_for_s(format_datetime(now + timedelta(hours=1), usegmt=True)) <= 3600
    assert 0.0 == asked_for_s(format_datetime(now - timedelta(hours=1), usegmt=True))


@pytest.mark.parametrize("header", ["", "soon", "-1", "1.5", "٣"])
def test_a_retry_after_that_is_none_is_passed_over(header: str) -> None:
    answer = httpx.Response(
        503, content=problem(503, retryable=True).content, headers=[(b"Retry-After", header.encode())]
    )
    with Script(answer).client(NO_RETRIES) as api, pytest.raises(ApiError) as caught:
        api.corpora()

    assert caught.value.retry_after_s is None


@given(
    attempts=st.integers(1, 20),
    left_s=st.floats(0, 100),
    retry_after_s=st.none() | st.floats(0, 100),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_waits_are_bounded_jittered_and_never_reach_the_deadline(
    attempts: int, left_s: float, retry_after_s: float | None, drawn: float
) -> None:
    retries = Retries(attempts_max=10, first_wait_s=0.5, wait_s_max=4.0)
    wait = retries.wait_s(attempts, left_s, retry_after_s, lambda: drawn)
    grown = min(4.0, 0.5 * 2 ** (attempts - 1))
    wanted = max(grown / 2 + grown / 2 * drawn, retry_after_s or 0)

    if attempts >= 10 or wanted >= left_s:
        assert wait is None
    else:
        assert pytest.approx(wanted) == wait


async def test_the_asynchronous_client_is_as_patient() -> None:
    script = Script(LOST, problem(503, retryable=True), done())
    transport = httpx.MockTransport(script)
    async with AsyncClient("http://ragver.test", transport=transport, retries=AT_ONCE) as api:
        assert RESULT == await api.commit("handbook", [])

    assert 3 == len(script.requests)
