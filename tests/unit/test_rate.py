"""A bucket lets through what its rate allows, and tells the others when to come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver.rate import BURST_S, Bucket

RATES = st.floats(0.1, 1_000)
STEPS = st.lists(st.floats(0, 5), max_size=200)


def test_a_second_s_worth_at_once_and_then_one_by_one() -> None:
    bucket = Bucket(4, now=0)
    assert [0, 0, 0, 0, 0.25] == [bucket.take(0) for _ in range(5)]
    assert [0, 0.25] == [bucket.take(0.25), bucket.take(0.25)]


def test_less_than_one_a_second_is_one_now_and_then_a_wait() -> None:
    bucket = Bucket(0.1, now=0)
    assert [0, 10] == [bucket.take(0), bucket.take(0)]
    assert bucket.take(9) == pytest.approx(1)
    assert bucket.take(10) == 0


@given(RATES, STEPS)
def test_never_more_than_the_rate_and_a_burst(rate: float, steps: list[float]) -> None:
    bucket, now, taken = Bucket(rate, now=0), 0.0, 0
    for step in steps:
        now += step
        taken += bucket.take(now) == 0
    assert taken <= max(1, rate * BURST_S) + rate * now + 1e-6


@given(RATES, STEPS)
def test_whoever_waits_as_told_gets_in(rate: float, steps: list[float]) -> None:
    bucket, now = Bucket(rate, now=0), 0.0
    for step in steps:
        now += step
        wait_s = bucket.take(now)
        if wait_s > 0:
            now += wait_s * (1 + 1e-9)
            assert bucket.take(now) == pytest.approx(0, abs=1e-6)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1, now=10)
    assert [0, 1] == [bucket.take(10), bucket.take(5)]
