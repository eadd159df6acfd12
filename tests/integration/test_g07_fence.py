"""G7: when a fenced commit returns, no verdict from before it can still be acted on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.ledger.corpora import FENCE_MARGIN_MS
from ragver.types import Decision
from tests.support.api import client_of
from tests.support.clock import Hands
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, chunk, retrieve, second_process, validate

pytestmark = pytest.mark.guarantee(7)

TTL_MS = 700
TICKS_PER_STEP = 3


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
async def fenced(database_url: str, tmp_path: Path, clock: Hands) -> AsyncIterator[Services]:
    """Services by a clock of the test's own, with one document."""
    async with open_test_services(database_url, tmp_path / "data", clock=clock) as services:
        await make_corpus(services, embedding=EXTERNAL, verdict_ttl_ms=TTL_MS)
        await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
        yield services


async def _returns_after(clock: Hands, commit: Awaitable[object]) -> int:
    """How many milliseconds of the test's clock pass between the commit and its return."""
    clock.slept.clear()
    waiting = asyncio.ensure_future(commit)
    await clock.slept.wait()
    passed = 0
    while not waiting.done():
        await clock.move(0.001)
        passed += 1
        for _ in range(TICKS_PER_STEP):
            await asyncio.sleep(0)
    await waiting
    return passed


async def test_g07_a_fenced_commit_outlasts_every_verdict_and_says_so(fenced: Services, clock: Hands) -> None:
    """It returns when the verdicts' time and the margin are over, and the commit was visible all the while."""
    waiting = asyncio.create_task(commit(fenced, CORPUS, delete("a"), fence=True))
    await clock.slept.wait()
    assert [] == (await retrieve(fenced)).hits
    await clock.move((TTL_MS + FENCE_MARGIN_MS) / 1000 - 0.001)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await clock.move(0.002)
    assert (await waiting).fenced


async def test_g07_the_fence_is_as_long_as_the_corpus_says(fenced: Services, clock: Hands) -> None:
    for ttl_ms in (1, 250):
        name = f"corpus{ttl_ms}"
        await make_corpus(fenced, name, embedding=EXTERNAL, verdict_ttl_ms=ttl_ms)
        passed = await _returns_after(clock, commit(fenced, name, fence=True))
        assert ttl_ms + FENCE_MARGIN_MS <= passed <= ttl_ms + FENCE_MARGIN_MS + 1


async def test_g07_a_commit_without_a_fence_does_not_wait(fenced: Services, clock: Hands) -> None:
    made = await commit(fenced, CORPUS, delete("a"))
    assert (False, False) == (made.fenced, clock.slept.is_set())


async def test_g07_a_replayed_fence_is_a_fence(fenced: Services, clock: Hands) -> None:
    """Whoever repeats a request whose answer was lost waits again: verdicts may be from just before."""
    first = asyncio.create_task(commit(fenced, CORPUS, delete("a"), fence=True, idempotency_key="once"))
    await clock.slept.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    passed = await _returns_after(clock, commit(fenced, CORPUS, delete("a"), fence=True, idempotency_key="once"))
    assert passed >= TTL_MS + FENCE_MARGIN_MS


REQUESTS = {
    "a commit": ("POST", "/commits", {"ops": [{"op": "delete", "key": "a"}]}),
    "a document put": ("PUT", "/documents/a", {"chunks": [chunk("a2", 2)]}),
    "a document deleted": ("DELETE", "/documents/a", None),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_g07_every_write_can_be_fenced_and_so_is_its_repetition(
    fenced: Services, clock: Hands, request_: tuple[str, str, Any]
) -> None:
    """Over HTTP, whichever form the write has; what is replayed waits like what was written."""
    method, path, body = request_
    async with client_of(fenced) as client:
        for replayed in (False, True):
            sent = client.request(
                method, f"/v1/corpora/{CORPUS}{path}?fence=true", json=body, headers={"Idempotency-Key": "once"}
            )
            answered: asyncio.Future[httpx.Response] = asyncio.ensure_future(sent)
            assert await _returns_after(clock, answered) >= TTL_MS + FENCE_MARGIN_MS
            result = answered.result().json()
            assert (True, replayed) == (result["fenced"], result["replayed"]), result


async def test_g07_a_verdict_says_how_long_it_may_be_acted_on(fenced: Services) -> None:
    """In every process, and whatever the verdict."""
    token = (await retrieve(fenced)).snapshot
    for process in (fenced, await second_process(fenced)):
        assert TTL_MS == (await validate(process, token)).valid_for_ms
    await commit(fenced, CORPUS, delete("a"))
    answer = await validate(fenced, token)
    assert (Decision.REJECT, TTL_MS) == (answer.verdict, answer.valid_for_ms)


async def test_g07_an_erasure_is_fenced_without_being_asked(fenced: Services, clock: Hands) -> None:
    request = wire.ErasureRequest(keys=["a"], reason="asked for")
    passed = await _returns_after(clock, fenced.erasures.erase(CORPUS, request))
    assert passed >= TTL_MS + FENCE_MARGIN_MS


class Holder:
    """Releases text as the contract allows: within the lease, counted from before it asked."""

    def __init__(self, services: Services, clock: Hands, snapshot: str, delays: random.Random) -> None:
        self.released_at: list[float] = []
        self._services, self._clock, self._snapshot, self._delays = services, clock, snapshot, delays

    async def run(self) -> None:
        """Ask, dawdle, check the lease and release in one go; until the text is rejected."""
        while True:
            asked_at = self._clock.monotonic()
            answer = await validate(self._services, self._snapshot)
            if answer.verdict is not Decision.PASS:
                return
            await self._clock.sleep(self._delays.uniform(0, 1.5 * TTL_MS / 1000))
            if self._clock.monotonic() < asked_at + answer.valid_for_ms / 1000:
                self.released_at.append(self._clock.monotonic())


async def _story(
    services: Services, clock: Hands, seed: int, erase: Callable[[], Awaitable[object]]
) -> tuple[float, list[float]]:
    """Many holders, and a delete at some moment: when it returned, and when text was released."""
    chance = random.Random(seed)
    token = (await retrieve(services)).snapshot
    processes = [services, await second_process(services), await second_process(services)]
    holders = [Holder(chance.choice(processes), clock, token, chance) for _ in range(20)]
    running = [asyncio.create_task(holder.run()) for holder in holders]
    deleting: asyncio.Future[object] | None = None
    returned_at = None
    async with asyncio.timeout(30):
        while deleting is None or not deleting.done() or not all(task.done() for task in running):
            if deleting is None and clock.monotonic() > 101.0:
                deleting = asyncio.ensure_future(erase())
            if deleting is not None and deleting.done() and returned_at is None:
                returned_at = clock.monotonic()
            await clock.move(0.01)
            await asyncio.sleep(0.001)
    assert deleting is not None
    await asyncio.gather(deleting, *running)
    return returned_at or clock.monotonic(), [at for holder in holders for at in holder.released_at]


@pytest.mark.parametrize("seed", range(2))
async def test_g07_nothing_is_released_after_the_fence_has_returned(fenced: Services, clock: Hands, seed: int) -> None:
    """Holders that ask, dawdle and honour the lease never release deleted text once the delete has returned."""
    returned_at, released_at = await _story(
        fenced, clock, seed, lambda: commit(fenced, CORPUS, delete("a"), fence=True)
    )
    assert released_at
    assert max(released_at) < returned_at


async def test_g07_without_the_wait_text_is_released_after_the_delete(fenced: Services, clock: Hands) -> None:
    """The anomaly: the same holders, and a delete that returns when it is committed."""
    returned_at, released_at = await _story(fenced, clock, 0, lambda: commit(fenced, CORPUS, delete("a")))
    assert max(released_at) > returned_at
