"""Once a day, by the ledger's clock, and a night that was missed is made up for."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.cli import nightly
from ragver.cli.connection import Connection
from ragver.cli.nightly import LOOK_AGAIN_S, RETRY_S, night, time_of_day, wait_s
from ragver.errors import InvalidRequest, LedgerUnavailable
from ragver.types import DriftKind, History, RunState

AT = time(3, 0)
HOUR_S = 3_600.0


def on(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "last_success", "hours"),
    [
        (on(5, 12), None, 0),
        (on(5, 12), on(5, 3), 15),
        (on(5, 12), on(5, 3, 1), 15),
        (on(5, 12), on(5, 2, 59), 0),  # tonight was missed
        (on(5, 2), on(4, 3), 1),
        (on(5, 2), on(4, 2), 0),  # yesterday's was missed
        (on(5, 3), on(4, 3), 0),
        (on(5, 3), on(5, 3), 24),
        (on(5, 2), on(5, 1), 1),  # one by hand in the evening does not stand for the coming night
    ],
)
def test_a_run_is_due_when_the_hour_has_come_since_the_last_one(
    now: datetime, last_success: datetime | None, hours: float
) -> None:
    assert hours * HOUR_S == wait_s(now, AT, last_success)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)), st.times())
def test_after_a_run_the_next_is_due_within_a_day_and_not_at_once(now: datetime, at: time) -> None:
    pause_s = wait_s(now, at, now)

    assert 0 < pause_s <= 24 * HOUR_S
    assert 0 == wait_s(now + timedelta(seconds=pause_s), at, now)


@pytest.mark.parametrize("text", ["3:00", "24:00", "03:60", "0300", "03:00:00", "noon", ""])
def test_what_is_no_time_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="like 03:00"):
        time_of_day(text)


def test_a_time_of_the_day_is_read() -> None:
    assert AT == time_of_day("03:00")


# a night


def a_run(state: RunState = RunState.COMPLETE, **changes: Any) -> wire.Reconciliation:
    none: dict[DriftKind, int] = dict.fromkeys(DriftKind, 0)
    made: dict[str, Any] = {
        "id": "1",
        "state": state,
        "detail": None,
        "repair": True,
        "verify_vectors": False,
        "max_drift_ratio": 0.1,
        "points_per_s": None,
        "epoch": 9,
        "history": History.SAME,
        "phase": "repair",
        "points": 100,
        "points_expected": 100,
        "in_flight": 0,
        "drift": 0,
        "drift_ratio": 0.0,
        "counts": none,
        "repaired": none,
        "started_at": on(5, 3),
        "finished_at": on(5, 3),
        "resumed": 0,
        "findings": [],
        "findings_omitted": 0,
    }
    return wire.Reconciliation(**(made | changes))


class Server:
    """Answers as a server with some corpora would, whose runs end as the test says."""

    def __init__(self, now: datetime, **ends: RunState | None) -> None:
        self.now = now
        self.ends = ends
        self.last_success: dict[str, datetime] = {}
        self.ran: list[str] = []

    async def corpora(self) -> list[Any]:
        return [type("Corpus", (), {"name": name}) for name in self.ends]

    async def reconciliations(self, name: str, *, limit: int) -> wire.ReconciliationList:
        return wire.ReconciliationList(reconciliations=[], last_success=self.last_success.get(name), now=self.now)

    async def reconcile(self, name: str, request: wire.ReconciliationRequest, *, wait_s: float) -> wire.Reconciliation:
        self.ran.append(name)
        end = self.ends[name]
        if end is None:
            raise LedgerUnavailable("away")
        if end is RunState.COMPLETE:
            self.last_success[name] = self.now
        return a_run(end)


async def nights(server: Server, *times: datetime) -> list[float]:
    """What is waited after a look at each of these times."""
    connection, tried = Connection(server, "a test", in_process=False), {}  # type: ignore[arg-type,var-annotated]
    waits = []
    for server.now in times:
        waits.append(await night(connection, AT, None, wire.ReconciliationRequest(), tried))
    return waits


async def test_every_corpus_is_reconciled_once_a_night() -> None:
    server = Server(on(5, 12), one=RunState.COMPLETE, two=RunState.COMPLETE)

    waits = await nights(server, on(5, 12), on(5, 13), on(6, 3))

    assert ["one", "two", "one", "two"] == server.ran
    assert [15 * HOUR_S, 14 * HOUR_S, 24 * HOUR_S] == waits


async def test_what_a_guard_has_stopped_is_tried_again_the_next_night_only() -> None:
    server = Server(on(5, 12), one=RunState.STOPPED)

    await nights(server, on(5, 12), on(5, 13), on(6, 4), on(6, 5))

    assert ["one", "one"] == server.ran


@pytest.mark.parametrize("end", [RunState.FAILED, None])
async def test_what_could_not_be_done_is_tried_again_soon(end: RunState | None) -> None:
    """And does not keep the other corpora waiting."""
    server = Server(on(5, 12), one=end, two=RunState.COMPLETE)

    assert [RETRY_S] * 2 == await nights(server, on(5, 12), on(5, 13))
    assert ["one", "two", "one"] == server.ran


async def test_without_a_corpus_somebody_looks_again_later() -> None:
    assert [LOOK_AGAIN_S] == await nights(Server(on(5, 12)), on(5, 12))


def test_the_pauses_are_shorter_than_a_day() -> None:
    """Or a night would pass unseen."""
    assert nightly.RETRY_S < nightly.LOOK_AGAIN_S < 24 * HOUR_S
