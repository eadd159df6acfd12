"""One read for everybody who is waiting for a fresh one."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from ragver.coalesce import Coalesced

SEEDS = range(20)
CALLS = 200


class Counter:
    """A read that says which one it was, and ends when told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.release = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.release.wait()
        return number


async def _settled() -> None:
    """Let everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_calls_made_during_a_read_share_the_next_one() -> None:
    """The read under way may be older than the question, so it answers only those who asked before it began."""
    read = Counter()
    coalesced = Coalesced(read)
    early = [asyncio.create_task(coalesced()) for _ in range(3)]
    await _settled()
    late = [asyncio.create_task(coalesced()) for _ in range(3)]
    await _settled()
    assert 1 == read.begun
    read.release.set()
    assert [1, 1, 1] == await asyncio.gather(*early)
    assert [2, 2, 2] == await asyncio.gather(*late)


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_answer_comes_from_a_read_begun_after_the_call(seed: int) -> None:
    """Calls, reads, failures and cancellations at random moments: whoever stays gets a fresh answer or its error."""
    chance = random.Random(seed)
    begun = 0

    async def read() -> int:
        nonlocal begun
        begun += 1
        number = begun
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            raise OSError(number)
        return number

    coalesced = Coalesced(read)

    async def call() -> None:
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        before = begun
        try:
            answer = await coalesced()
        except OSError as error:
            answer = error.args[0]
        assert answer > before

    calls = [asyncio.create_task(call()) for _ in range(CALLS)]
    for impatient in chance.sample(calls, CALLS // 4):
        await asyncio.sleep(0)
        impatient.cancel()
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [] == [error for error in outcomes if error is not None and not isinstance(error, asyncio.CancelledError)]
    assert begun < CALLS


async def test_sharing_the_read_under_way_would_be_stale() -> None:
    """The anomaly: whoever joins a read that has begun gets what was so before the call."""
    value, release = "old", asyncio.Event()

    async def read() -> str:
        seen = value
        await release.wait()
        return seen

    under_way: asyncio.Task[str] | None = None

    async def joined() -> str:
        nonlocal under_way
        under_way = under_way or asyncio.create_task(read())
        return await asyncio.shield(under_way)

    coalesced = Coalesced(read)
    first = [asyncio.create_task(joined()), asyncio.create_task(coalesced())]
    await _settled()
    value = "new"
    second = [asyncio.create_task(joined()), asyncio.create_task(coalesced())]
    await _settled()
    release.set()
    assert ["old", "old"] == await asyncio.gather(*first)
    assert ["old", "new"] == await asyncio.gather(*second)


async def test_an_error_reaches_all_who_waited_for_that_read_and_nobody_else() -> None:
    read = Counter()
    failing = True

    async def sometimes() -> int:
        number = await read()
        if failing:
            raise OSError(number)
        return number

    coalesced = Coalesced(sometimes)
    first = [asyncio.create_task(coalesced()) for _ in range(3)]
    await _settled()
    second = [asyncio.create_task(coalesced()) for _ in range(3)]
    await _settled()
    read.release.set()
    outcomes = await asyncio.gather(*first, return_exceptions=True)
    assert [(1,), (1,), (1,)] == [error.args for error in outcomes if isinstance(error, OSError)]
    await asyncio.gather(*second, return_exceptions=True)
    failing = False
    assert 3 == await coalesced()


async def test_a_caller_who_gives_up_harms_nobody() -> None:
    read = Counter()
    coalesced = Coalesced(read)
    impatient, patient = asyncio.create_task(coalesced()), asyncio.create_task(coalesced())
    await _settled()
    impatient.cancel()
    await _settled()
    read.release.set()
    assert 1 == await patient
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert 2 == await coalesced()


async def test_nobody_is_left_who_would_hear_the_error() -> None:
    """A read that fails after all callers have given up ends in silence, and the next one is made."""
    read = Counter()

    async def failing() -> int:
        raise OSError(await read())

    coalesced = Coalesced(failing)
    gone = asyncio.create_task(coalesced())
    await _settled()
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    read.release.set()
    await _settled()
    with pytest.raises(OSError, match="2"):
        await coalesced()


async def test_a_cancelled_read_takes_its_callers_along_and_no_later_ones() -> None:
    """When the read itself is cancelled, whoever waited is told, and the next call is answered."""
    read = Counter()
    coalesced = Coalesced(read)
    first = asyncio.create_task(coalesced())
    await _settled()
    second = asyncio.create_task(coalesced())
    await _settled()
    assert coalesced._worker is not None
    coalesced._worker.cancel()
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [asyncio.CancelledError] * 2 == [type(error) for error in outcomes]
        read.release.set()
        assert 2 == await coalesced()


async def test_closing_waits_for_a_read_that_nobody_waits_for() -> None:
    """A caller gives up, and its read is still under way: it has ended when `close` returns."""
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read() -> None:
        begun.set()
        await go.wait()
        ended.set()

    coalesced = Coalesced(read)
    caller = asyncio.create_task(coalesced())
    await begun.wait()
    caller.cancel()
    closing = asyncio.create_task(coalesced.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await closing
    assert ended.is_set()
