"""G10 of webhooks and feeds: `kill -9` of whoever tells, at any point, loses no event."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.client import Client
from ragver.ledger import webhooks
from ragver.ledger.recalls import Recalled
from ragver.ledger.webhooks import Webhook
from ragver.webhooks import delivery
from ragver.webhooks.delivery import Deliverer, _Failure
from tests.support.receiver import Got, Receiver, receiving
from tests.support.server import running_server
from tests.support.services import CORPUS, SECRET, open_test_services
from tests.support.webhooks import NAMES, delivering, kill, registered, shown, something_to_recall

pytestmark = pytest.mark.guarantee(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await something_to_recall(services)
        yield services


class Killed(Deliverer):
    """Stands still for ever at the moment when it would send an event, and is then taken away."""

    at = asyncio.Event()

    async def _post(self, http: httpx.AsyncClient, webhook: Webhook, recalled: Recalled) -> _Failure | None:
        self.at.set()
        await asyncio.Event().wait()
        return None


class KilledHasty(Killed):
    """The same, but it notes an event as told before it tells it."""

    async def _post(self, http: httpx.AsyncClient, webhook: Webhook, recalled: Recalled) -> _Failure | None:
        await webhooks.advance(self._database, webhook, recalled.position, delivered=True)
        return await super()._post(http, webhook, recalled)


async def _after_a_kill(stopped: Services, receiver: Receiver, kind: type[Killed]) -> list[str]:
    """What arrives when a deliverer was taken away just before it sent an event, and another one goes on."""
    kind.at = asyncio.Event()
    await registered(stopped, receiver)
    await kill(stopped, "a", "b")
    async with delivering(stopped, kind):
        await kind.at.wait()
    async with delivering(stopped):
        await shown(stopped, cursor="3")
    return [one.recall[1] for one in receiver.got]


async def test_g10_an_event_that_was_not_sent_is_sent_by_the_next(stopped: Services, receiver: Receiver) -> None:
    assert ["a", "b"] == await _after_a_kill(stopped, receiver, Killed)


async def test_g10_anomaly_told_said_before_it_is_so_loses_an_event(stopped: Services, receiver: Receiver) -> None:
    assert ["b"] == await _after_a_kill(stopped, receiver, KilledHasty)


async def test_g10_a_paused_deliverer_takes_nothing_back(stopped: Services, receiver: Receiver) -> None:
    """One that wakes up when another has gone on: what it thinks to know does not move the position backwards."""
    await registered(stopped, receiver)
    (before,) = await webhooks.due(stopped.database)
    await kill(stopped, "a", "b")
    async with delivering(stopped):
        await shown(stopped, cursor="3")
    assert not await webhooks.advance(stopped.database, before, before.position, delivered=True)
    assert "3" == (await shown(stopped)).cursor


class Holding:
    """Answers the first event of a server, and the second one only when that server is dead."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._came = len(receiver.got)
        self._dead = threading.Event()
        receiver.answer = self._answer

    def _answer(self, _: Got) -> int:
        if len(self._receiver.got) > self._came + 1:
            self._dead.wait()
        return 200

    def until_held(self) -> None:
        self._receiver.wait(self._came + 2)

    def let_go(self) -> None:
        self._dead.set()


def served_and_killed(directory: Path, database_url: str, holding: Holding, cursor: str) -> list[wire.Recall]:
    """A server on the ledger, killed (-9) in the middle of a delivery; what a follower got from it before."""
    seen: list[wire.Recall] = []
    with running_server(directory, database_url=database_url, secret_key=SECRET) as server:
        holding.until_held()
        with Client(server.url) as client:
            for recall in client.follow_recalls(CORPUS, cursor=cursor):
                seen.append(recall)
                if len(seen) == 2:
                    break
        server.process.kill()
        server.process.wait()
    holding.let_go()
    return seen


@pytest.mark.slow
async def test_g10_servers_killed_while_they_tell(
    stopped: Services, receiver: Receiver, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real servers, each killed when a receiver has an event and the server does not know it. In the end every event
    has come, in order, and what came twice has the same id; and a follower that went from server to server with the id
    of the last event has seen each recall once."""
    await registered(stopped, receiver)
    await kill(stopped, *NAMES)
    followed: list[wire.Recall] = []
    for number in range(len(NAMES) // 2):
        cursor = followed[-1].recall_id if followed else "0"
        directory = tmp_path / f"server-{number}"
        followed += await asyncio.to_thread(served_and_killed, directory, database_url, Holding(receiver), cursor)

    receiver.answer = lambda got: 200
    monkeypatch.setattr(delivery, "POLL_S", 0.02)
    async with delivering(stopped):
        await shown(stopped, cursor=str(1 + len(NAMES)))
    ids = {one.event_id: one.recall[1] for one in receiver.got}
    assert list(NAMES) == list(ids.values()), "each event has one id, and they first came in order"
    assert len(receiver.got) > len(NAMES), "no event came twice, so no server was killed where it hurts"
    assert all(one.signed for one in receiver.got)
    assert list(NAMES) == [recall.answer_id for recall in followed]
