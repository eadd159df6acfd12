"""The gate around a stream: what comes out, when, and what happens when any of the three others is slow or fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.errors import ClaimTooLong, InvalidRequest, LedgerUnavailable, VerdictOverdue
from ragver.gate import (
    AnswerRetracted,
    AsyncGatedStream,
    Cut,
    End,
    Event,
    Flag,
    GatedStream,
    Released,
    Retraction,
    flow,
)
from ragver.types import Decision, Policy, Scope
from tests.support.clock import Hands
from tests.support.markdown import ANSWERS
from tests.support.verdicts import Verdicts

ANSWER = "You get 30 days [1]. They carry over [2].\n\n- but not all [3]\n- and not for ever [1]\n"


class Model:
    """An asynchronous stream of text that a test can follow."""

    def __init__(self, *pieces: str, then: Exception | None = None) -> None:
        self.pieces = pieces
        self.then = then
        self.written = 0
        self.closed = False
        self.go = asyncio.Event()
        self.go.set()
        self.stop_at: int | None = None
        """Waits for `go` before this piece."""

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            for piece in self.pieces:
                if self.written == self.stop_at:
                    self.go.clear()
                await self.go.wait()
                self.written += 1
                yield piece
                await asyncio.sleep(0)
            if self.then is not None:
                raise self.then
        finally:
            self.closed = True


def words(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


async def events(gated: AsyncGatedStream) -> list[Event]:
    return [event async for event in gated.events()]


async def until_it_fails(gated: AsyncGatedStream, happened: list[Event]) -> None:
    """Note what happens up to an error, which is raised."""
    async for event in gated.events():
        happened += [event]


def released(happened: list[Event]) -> str:
    return "".join(event for event in happened if isinstance(event, Released))


async def settled() -> None:
    """Let everything happen that can happen now."""
    for _ in range(50):
        await asyncio.sleep(0)


# ── what comes out ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_good_answer_comes_out_in_pieces_with_its_verdict() -> None:
    verdicts = Verdicts()
    happened = await events(AsyncGatedStream(verdicts, "token", Model(*words(ANSWER))))
    assert ANSWER == released(happened)
    assert len(happened) > 3
    end = happened[-1]
    assert isinstance(end, End)
    assert (Decision.PASS, ANSWER, Decision.PASS) == (end.decision, end.released, end.verdict.verdict)
    assert [1, 2, 3] == [citation.ref for citation in end.verdict.citations]


async def test_the_context_is_checked_before_anything_is_let_out() -> None:
    """Also what no one cites."""
    verdicts = Verdicts(9)
    happened = await events(AsyncGatedStream(verdicts, "token", Model(*words(ANSWER))))
    (retraction,) = happened
    assert isinstance(retraction, Retraction)
    assert ("", [9]) == (retraction.released, [citation.ref for citation in retraction.citations])
    assert [Scope.CONTEXT] == [request.scope for request in verdicts.asked]


async def test_one_request_for_a_release_at_most() -> None:
    """And one for the context."""
    verdicts = Verdicts()
    happened = await events(AsyncGatedStream(verdicts, "token", Model(*words(ANSWER))))
    assert len(verdicts.asked) <= 1 + sum(isinstance(event, Released) for event in happened)


async def test_nothing_is_asked_after_the_end() -> None:
    """However long the reader stays with the last events; and a retracted model is closed before it is told."""
    verdicts = Verdicts()
    async for event in AsyncGatedStream(verdicts, "token", Model(*words(ANSWER))).events():
        if isinstance(event, End):
            asked = len(verdicts.asked)
            await settled()
            assert asked == len(verdicts.asked)
    model = Model(*words(ANSWER))
    async for event in AsyncGatedStream(Verdicts(1), "token", model).events():
        assert isinstance(event, Retraction)
        assert model.closed or not model.written


async def test_the_reader_of_text_gets_text_or_an_error() -> None:
    gated = AsyncGatedStream(Verdicts(), "token", Model(*words(ANSWER)))
    assert ANSWER == "".join([text async for text in gated])
    assert gated.end is not None
    verdicts = Verdicts()
    gated = AsyncGatedStream(verdicts, "token", Model(*words(ANSWER)))
    got = ""

    async def read() -> None:
        nonlocal got
        async for text in gated:
            got += text
            verdicts.kill(2)

    with pytest.raises(AnswerRetracted, match=r"1042\.md no longer exists") as caught:
        await read()
    assert got == caught.value.retraction.released == "You get 30 days [1]."
    assert gated.end is None


@pytest.mark.parametrize(("policy", "decision"), [(Policy.FLAG, Decision.FLAG), (Policy.REDACT, Decision.FLAG)])
async def test_a_death_in_the_middle(policy: Policy, decision: Decision) -> None:
    """Is flagged or cut, as the policy says, and the rest comes out."""
    verdicts = Verdicts()
    happened: list[Event] = []
    async for event in AsyncGatedStream(verdicts, "token", Model(*words(ANSWER)), policy=policy).events():
        happened.append(event)
        verdicts.kill(3)
    end = happened[-1]
    assert isinstance(end, End)
    assert decision is end.decision
    if policy is Policy.REDACT:
        assert any(isinstance(event, Cut) for event in happened)
        assert ANSWER.replace("- but not all [3]\n", "") == released(happened) == end.released
    else:
        (flag,) = [event for event in happened if isinstance(event, Flag)]
        assert ANSWER == released(happened)
        assert ["- but not all [3]"] == [ANSWER[start:stop] for start, stop in flag.spans]


@pytest.mark.parametrize("text", ["", " \n", "It says nothing.", "# Only a heading"])
async def test_answers_without_citations(text: str) -> None:
    happened = await events(AsyncGatedStream(Verdicts(), "token", [text]))
    assert (text, Decision.PASS) == (released(happened), happened[-1].decision if isinstance(happened[-1], End) else 0)


async def test_characters_torn_apart_are_mended() -> None:
    """And half a character, which nothing could show, is a replacement character."""
    halves = ["Leave \ud83d", "\ude00 [1]. \ud83d", "Then \ude00"]
    assert "Leave 😀 [1]. �Then �" == released(await events(AsyncGatedStream(Verdicts(), "token", halves)))


@given(ANSWERS, st.integers(1, 9), st.sampled_from(Policy))
def test_any_split_of_any_answer(text: str, size: int, policy: Policy) -> None:
    """What is good comes out as it was written, through all of the machinery."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]

    async def run() -> str:
        return released(await events(AsyncGatedStream(Verdicts(), "token", Model(*pieces), policy=policy)))

    verdicts_know = all(ref not in text for ref in ("[0]", "1042"))
    if verdicts_know:
        assert text == asyncio.run(run())


# ── leases ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_verdict_that_ran_out_while_it_was_under_way_releases_nothing() -> None:
    """The lease counts from before the request; the text comes out on a later verdict."""
    clock = Hands()
    verdicts = Verdicts(valid_for_ms=1_000)
    slow = iter([0.0, 1.0, 0.999])
    verdicts.on_answer = lambda: clock.turn(next(slow, 0.0))
    happened = await events(AsyncGatedStream(verdicts, "token", ["Good [1]."], clock=clock))
    assert "Good [1]." == released(happened)
    assert 3 == len(verdicts.asked)


async def test_a_reader_who_comes_back_late_gets_a_new_verdict() -> None:
    """What was judged while the reader was away is judged again; what has died meanwhile does not come out."""
    clock = Hands()
    verdicts = Verdicts(valid_for_ms=1_000)
    got: list[Event] = []
    async for event in AsyncGatedStream(verdicts, "token", Model(*words(ANSWER)), clock=clock).events():
        got.append(event)
        await settled()
        verdicts.kill(2)
        clock.turn(1.0)
    assert "You get 30 days [1]." == released(got)
    assert isinstance(got[-1], Retraction)


async def test_a_piece_knows_its_deadline() -> None:
    clock = Hands()
    verdicts = Verdicts(valid_for_ms=1_500)
    async for piece in AsyncGatedStream(verdicts, "token", ["Good [1]."], clock=clock):
        assert (101.5, 1_500, False) == (piece.deadline_s, piece.valid_for_ms, piece.late)
        clock.turn(1.5)
        assert (0, True) == (piece.valid_for_ms, piece.late)


async def test_verdicts_that_are_always_late_are_an_error() -> None:
    clock = Hands()
    verdicts = Verdicts(valid_for_ms=1_000)
    verdicts.on_answer = lambda: clock.turn(2.0)
    with pytest.raises(VerdictOverdue, match="verdict_ttl_ms"):
        await events(AsyncGatedStream(verdicts, "token", ["Good [1]."], clock=clock))
    assert flow.LATE_MAX == len(verdicts.asked)


# ── a slow validator, and none ──────────────────────────────────────────────────────────────────────────────


async def test_the_model_is_read_on_while_a_verdict_is_awaited() -> None:
    """And what it writes meanwhile goes into one request."""
    verdicts = Verdicts()
    verdicts.open.clear()
    model = Model(*words(ANSWER))
    reading = asyncio.create_task(events(AsyncGatedStream(verdicts, "token", model)))
    await settled()
    assert (len(model.pieces), 1) == (model.written, len(verdicts.asked))
    verdicts.open.set()
    assert ANSWER == released(await reading)
    assert 2 == len(verdicts.asked)


async def test_the_model_waits_when_too_much_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HELD_CHARACTERS_MAX", 40)
    verdicts = Verdicts()
    verdicts.open.clear()
    text = "It is so [1]. " * 20
    model = Model(*words(text))
    reading = asyncio.create_task(events(AsyncGatedStream(verdicts, "token", model)))
    await settled()
    assert 40 // 4 <= model.written <= 40 // 4 + 1
    verdicts.open.set()
    assert text == released(await reading)


async def test_a_claim_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "HELD_CHARACTERS_MAX", 40)
    model = Model(*(["on and on "] * 20))
    with pytest.raises(ClaimTooLong, match="characters"):
        await events(AsyncGatedStream(Verdicts(), "token", model))
    assert model.closed


async def test_a_failure_that_passes_is_retried_and_a_lasting_one_is_loud() -> None:
    """Within a bound; nothing comes out without a verdict, and the model is told to stop."""
    down = LedgerUnavailable("the ledger is away")
    verdicts = Verdicts()
    verdicts.errors = [down, down]
    assert "Good [1]." == released(
        await events(AsyncGatedStream(verdicts, "token", ["Good [1]."], clock=Hands(awake=True)))
    )
    verdicts.errors = [down] * flow.ATTEMPTS_MAX
    model = Model("Good [1]. ", "Good [2].")
    got: list[Event] = []
    with pytest.raises(LedgerUnavailable):
        await until_it_fails(AsyncGatedStream(verdicts, "token", model, clock=Hands(awake=True)), got)
    assert ([], True) == (got, model.closed)


async def test_a_refusal_is_told_at_once() -> None:
    verdicts = Verdicts()
    verdicts.errors = [InvalidRequest("no")]
    with pytest.raises(InvalidRequest):
        await events(AsyncGatedStream(verdicts, "token", ["Good [1]."]))
    assert 1 == len(verdicts.asked)


async def test_a_validator_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "VERDICT_S_MAX", 0.001)
    verdicts = Verdicts()
    verdicts.open.clear()
    with pytest.raises(VerdictOverdue):
        await events(AsyncGatedStream(verdicts, "token", ["Good [1]."], clock=Hands(awake=True)))


# ── a model that dies, a reader who leaves ──────────────────────────────────────────────────────────────────


async def test_a_stream_that_dies_gives_its_complete_claims_and_its_error() -> None:
    """The last claim was not complete: its citation may be missing."""
    model = Model("Good [1]. Good [2]. And then", then=ConnectionError("the model is gone"))
    got: list[Event] = []
    with pytest.raises(ConnectionError, match="the model is gone"):
        await until_it_fails(AsyncGatedStream(Verdicts(), "token", model), got)
    assert "Good [1]. Good [2]." == released(got)
    assert not any(isinstance(event, End) for event in got)


async def test_a_reader_who_leaves_closes_the_model() -> None:
    """With `async with`, with `aclosing`, and when its task is cancelled."""
    model = Model(*words(ANSWER))
    async with AsyncGatedStream(Verdicts(), "token", model) as gated:
        async for _ in gated:
            break
    assert model.closed

    model = Model(*words(ANSWER))
    async with aclosing(AsyncGatedStream(Verdicts(), "token", model).events()) as reading:
        await anext(reading)
    assert model.closed

    model = Model("Good [1]. ", "And", "so")
    model.stop_at = 2
    task = asyncio.create_task(events(AsyncGatedStream(Verdicts(), "token", model)))
    await settled()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert model.closed


async def test_nothing_stays_behind() -> None:
    """No task, whether the answer ended, was retracted or was left."""
    before = asyncio.all_tasks()
    await events(AsyncGatedStream(Verdicts(), "token", Model(*words(ANSWER))))
    await events(AsyncGatedStream(Verdicts(1), "token", Model(*words(ANSWER))))
    async with AsyncGatedStream(Verdicts(), "token", Model(*words(ANSWER))) as gated:
        async for _ in gated:
            break
    assert before == asyncio.all_tasks()


async def test_it_is_read_once() -> None:
    gated = AsyncGatedStream(Verdicts(), "token", [ANSWER])
    await events(gated)
    with pytest.raises(RuntimeError, match="once"):
        await events(gated)


# ── other kinds of streams ──────────────────────────────────────────────────────────────────────────────────


async def test_an_ordinary_iterator_is_read_in_a_thread_and_closed() -> None:
    closed = threading.Event()
    threads = set()

    def model() -> Iterator[str]:
        try:
            for piece in words(ANSWER):
                threads.add(threading.current_thread())
                yield piece
        finally:
            closed.set()

    assert ANSWER == released(await events(AsyncGatedStream(Verdicts(), "token", model())))
    assert threading.main_thread() not in threads
    assert closed.is_set()
    async with AsyncGatedStream(Verdicts(), "token", model()) as gated:
        async for _ in gated:
            break
    assert closed.wait(5)


async def test_what_is_no_stream_is_told_so() -> None:
    async def answer() -> str:
        return ANSWER

    coroutine = answer()
    with pytest.raises(TypeError, match="await it first"):
        AsyncGatedStream(Verdicts(), "token", coroutine)  # type: ignore[arg-type]
    await coroutine
    with pytest.raises(TypeError, match="int is none"):
        AsyncGatedStream(Verdicts(), "token", 3)  # type: ignore[arg-type]


async def test_eight_gates_at_a_time() -> None:
    """Share nothing."""
    verdicts = Verdicts()
    many = [AsyncGatedStream(verdicts, "token", Model(*words(ANSWER * number))) for number in range(1, 9)]
    assert [ANSWER * number for number in range(1, 9)] == [
        released(happened) for happened in await asyncio.gather(*map(events, many))
    ]


# ── without an event loop ───────────────────────────────────────────────────────────────────────────────────


def blocking(verdicts: Verdicts) -> Callable[[wire.ValidateRequest], wire.ValidateResponse]:
    return lambda request: asyncio.run(verdicts(request))


def test_the_synchronous_face_lets_out_the_same() -> None:
    gated = GatedStream(blocking(Verdicts()), "token", words(ANSWER))
    assert ANSWER == "".join(gated)
    assert isinstance(gated.end, End)
    (retraction,) = GatedStream(blocking(Verdicts(9)), "token", words(ANSWER)).events()
    assert isinstance(retraction, Retraction)
    with pytest.raises(AnswerRetracted):
        list(GatedStream(blocking(Verdicts(9)), "token", words(ANSWER)))


def test_the_synchronous_face_looks_at_the_lease_in_the_readers_thread() -> None:
    """A verdict that came while the reader was away, and has run out since, lets nothing out."""
    clock = Hands()
    verdicts = Verdicts(valid_for_ms=1_000)
    go_on, judged = threading.Event(), threading.Event()

    def model() -> Iterator[str]:
        yield "Good [1]. And "
        go_on.wait()
        yield "good [2]. And"

    reading = GatedStream(blocking(verdicts), "token", model(), clock=clock).events()
    assert "Good [1]." == next(reading)
    verdicts.on_answer = judged.set
    go_on.set()
    judged.wait()
    verdicts.kill(2)
    clock.turn(1.0)
    (retraction,) = reading
    assert isinstance(retraction, Retraction)


def test_leaving_the_synchronous_face_closes_the_model() -> None:
    closed = threading.Event()

    def model() -> Iterator[str]:
        try:
            yield from words(ANSWER)
        finally:
            closed.set()

    with GatedStream(blocking(Verdicts()), "token", model()) as gated:
        next(iter(gated))
    assert closed.is_set()
    assert not any(thread.name.startswith("ragver gate") for thread in threading.enumerate())


def test_the_synchronous_face_wants_an_ordinary_stream() -> None:
    with pytest.raises(TypeError, match="asynchronous client"):
        GatedStream(blocking(Verdicts()), "token", Model(ANSWER))
