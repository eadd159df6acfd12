"""Webhooks: recalls arrive signed, in order and at least once; what cannot be is kept and can be asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import TooManyWebhooks, WebhookNotFound, WebhookUrlRefused
from ragver.ledger import webhooks
from ragver.ledger.database import Database
from ragver.ledger.webhooks import Webhook
from ragver.types import Scope
from ragver.webhooks import delivery
from ragver.webhooks.delivery import Deliverer
from tests.support.api import client_of
from tests.support.ledger import query
from tests.support.receiver import Receiver, receiving
from tests.support.services import CORPUS, commit, open_test_services, put
from tests.support.spine import chunk, sql
from tests.support.webhooks import NAMES, delivering, eventually, kill, registered, shown, something_to_recall

URL = "https://example.org/recalls"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than has to be."""
    for name in ("POLL_S", "STAND_BY_S", "RETRY_S", "SAVED_S"):
        monkeypatch.setattr(delivery, name, 0.02)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services that deliver nothing by themselves."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await something_to_recall(services)
        yield services


async def test_recalls_arrive_signed_and_in_order(stopped: Services, receiver: Receiver) -> None:
    """Those of commits after the registration, each with an id of its own."""
    await kill(stopped, "a")
    await registered(stopped, receiver)
    await kill(stopped, "b", "c")
    async with delivering(stopped):
        await receiver.until(2)
        await kill(stopped, "d")
        got = await receiver.until(3)
        webhook = await shown(stopped, cursor="5")
    assert [(3, "b"), (4, "c"), (5, "d")] == [one.recall for one in got]
    assert all(one.signed for one in got)
    assert 3 == len({one.event_id for one in got})
    event = wire.WebhookEvent.model_validate(got[0].event)
    assert ("answer.recalled", CORPUS, "no b") == (event.type, event.corpus, event.data.reason)
    assert event.timestamp == event.data.committed_at
    assert ("active", 0, None) == (webhook.state, webhook.attempts, webhook.last_error)
    assert webhook.delivered_at is not None


async def test_scope_and_beginning_can_be_chosen(stopped: Services, receiver: Receiver) -> None:
    """From an early epoch on, and also what an answer rested on without citing it."""
    await kill(stopped, "a")
    wanted = wire.WebhookCreate(url=receiver.url, scope=Scope.CONTEXT, since_epoch=0)
    receiver.secret = (await stopped.webhooks.add(CORPUS, wanted)).secret
    async with delivering(stopped):
        got = await receiver.until(len(NAMES))
    assert [(2, name) for name in NAMES] == [one.recall for one in got]


async def test_a_failed_attempt_is_repeated_until_it_succeeds(stopped: Services, receiver: Receiver) -> None:
    """The same event under the same id, and no later one before it."""
    await registered(stopped, receiver)
    await kill(stopped, "a", "b")
    answers = iter([500, 429, 302, 404])
    receiver.answer = lambda got: next(answers, 200)
    async with delivering(stopped):
        got = await receiver.until(6)
    assert [(2, "a")] * 5 + [(3, "b")] == [one.recall for one in got]
    assert 1 == len({one.event_id for one in got[:5]})


async def test_what_fails_again_and_again_becomes_a_dead_letter(
    stopped: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events behind it have their turn; asked for, it is delivered after all."""
    monkeypatch.setattr(delivery, "ATTEMPTS_MAX", 3)
    webhook_id = await registered(stopped, receiver)
    receiver.answer = lambda got: 500 if got.recall[1] == "a" else 200
    async with delivering(stopped):
        await kill(stopped, "a", "b")
        await shown(stopped, dead_letters=1, cursor="3")
        assert [(2, "a")] * 3 + [(3, "b")] == [one.recall for one in receiver.got]
        (letter,) = (await stopped.webhooks.dead_letters(CORPUS, webhook_id, None, 10)).dead_letters
        assert (3, "HTTP 500", False) == (letter.attempts, letter.error, letter.due)
        assert 1 == (await stopped.webhooks.redeliver(CORPUS, webhook_id, wire.RedeliverRequest())).due
        await receiver.until(5)

        async def failed_again() -> bool:
            (again,) = (await stopped.webhooks.dead_letters(CORPUS, webhook_id, None, 10)).dead_letters
            return not again.due and again.attempts == 4

        await eventually(failed_again)
        receiver.answer = lambda got: 200
        wanted = wire.RedeliverRequest(recall_ids=[letter.recall_id])
        assert 1 == (await stopped.webhooks.redeliver(CORPUS, webhook_id, wanted)).due
        await shown(stopped, dead_letters=0)
    assert {receiver.got[0].event_id} == {one.event_id for one in receiver.got if one.recall[1] == "a"}


async def test_dead_letters_come_in_pages(
    stopped: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ATTEMPTS_MAX", 1)
    webhook_id = await registered(stopped, receiver)
    receiver.answer = lambda got: 500
    await kill(stopped, "a", "b", "c")
    async with delivering(stopped):
        await shown(stopped, dead_letters=3)
    first = await stopped.webhooks.dead_letters(CORPUS, webhook_id, None, 2)
    second = await stopped.webhooks.dead_letters(CORPUS, webhook_id, first.next_cursor, 2)
    assert (2, 1, None) == (len(first.dead_letters), len(second.dead_letters), second.next_cursor)


async def test_a_receiver_that_is_gone_is_left_alone(stopped: Services, receiver: Receiver) -> None:
    """410 is a no for good."""
    await registered(stopped, receiver)
    receiver.answer = lambda got: 410
    await kill(stopped, "a", "b")
    async with delivering(stopped):
        webhook = await shown(stopped, state="disabled")
    assert ("HTTP 410", "1", 1) == (webhook.last_error, webhook.cursor, len(receiver.got))


async def test_one_receiver_that_is_away_does_not_hold_up_the_others(stopped: Services, receiver: Receiver) -> None:
    await stopped.webhooks.add(CORPUS, wire.WebhookCreate(url="http://127.0.0.1:9/nobody"))
    await registered(stopped, receiver)
    await kill(stopped, "a")
    async with delivering(stopped):
        assert [(2, "a")] == [one.recall for one in await receiver.until(1)]

        async def noted() -> bool:
            return (await stopped.webhooks.all(CORPUS))[0].state == "retrying"

        await eventually(noted)
    away, _ = await stopped.webhooks.all(CORPUS)
    assert "ConnectError" in (away.last_error or "")


async def test_one_process_delivers_and_another_takes_over(stopped: Services, receiver: Receiver) -> None:
    """No event comes twice as long as nobody dies."""
    await registered(stopped, receiver)
    async with delivering(stopped):
        await kill(stopped, "a")
        await receiver.until(1)
        async with delivering(stopped):
            await kill(stopped, "b")
            await receiver.until(2)
            await shown(stopped, cursor="3")
    async with delivering(stopped):
        await kill(stopped, "c")
        got = await receiver.until(3)
        await shown(stopped, cursor="4")
    assert ["a", "b", "c"] == [one.recall[1] for one in got]


async def test_what_was_passed_without_an_event_is_saved(stopped: Services, receiver: Receiver) -> None:
    """So that a restart does not look everything through again."""
    await registered(stopped, receiver)
    made = await commit(stopped, CORPUS, put("new", chunks=[chunk("new", 9)]))
    async with delivering(stopped):
        await shown(stopped, cursor=str(made.epoch))
    assert [] == receiver.got


async def test_a_dead_letter_of_an_answer_that_is_not_kept_any_more_goes(
    stopped: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ATTEMPTS_MAX", 1)
    webhook_id = await registered(stopped, receiver)
    receiver.answer = lambda got: 500
    await kill(stopped, "a")
    async with delivering(stopped):
        await shown(stopped, dead_letters=1)
        await sql(stopped, "DELETE FROM answer_citation")
        await stopped.webhooks.redeliver(CORPUS, webhook_id, wire.RedeliverRequest())
        await shown(stopped, dead_letters=0)
    assert 1 == len(receiver.got)


async def test_a_webhook_may_not_go_everywhere(stopped: Services) -> None:
    with pytest.raises(WebhookUrlRefused):
        await stopped.webhooks.add(CORPUS, wire.WebhookCreate(url="http://169.254.169.254/latest"))


async def test_there_is_a_bound_on_webhooks(stopped: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragver.ledger.webhooks.WEBHOOKS_MAX", 1)
    made = await stopped.webhooks.add(CORPUS, wire.WebhookCreate(url=URL))
    with pytest.raises(TooManyWebhooks):
        await stopped.webhooks.add(CORPUS, wire.WebhookCreate(url=URL))
    await stopped.webhooks.remove(CORPUS, int(made.webhook_id))
    with pytest.raises(WebhookNotFound):
        await stopped.webhooks.remove(CORPUS, int(made.webhook_id))
    await stopped.webhooks.add(CORPUS, wire.WebhookCreate(url=URL))


async def test_a_corpus_takes_its_webhooks_with_it(stopped: Services) -> None:
    await stopped.webhooks.add(CORPUS, wire.WebhookCreate(url=URL))
    await stopped.catalog.delete(CORPUS)
    assert 0 == (await query(stopped.database.url, "SELECT count(*) FROM webhook"))[0][0]


async def test_over_http(stopped: Services) -> None:
    path = f"/v1/corpora/{CORPUS}/webhooks"
    async with client_of(stopped) as client:
        made = await client.post(path, json={"url": URL})
        assert (201, True) == (made.status_code, made.json()["secret"].startswith("whsec_"))
        (listed,) = (await client.get(path)).json()["webhooks"]
        assert "secret" not in listed
        one = f"{path}/{listed['webhook_id']}"
        assert [] == (await client.get(f"{one}/dead-letters")).json()["dead_letters"]
        assert 0 == (await client.post(f"{one}/dead-letters/redeliver", json={})).json()["due"]
        assert 422 == (await client.post(path, json={"url": "http://example.org/"})).status_code
        assert 422 == (await client.post(path, json={"url": URL, "secret": "short"})).status_code
        assert 204 == (await client.delete(one)).status_code
        assert 404 == (await client.delete(one)).status_code


async def test_a_corpus_made_again_is_none_of_the_old_receivers_business(
    stopped: Services, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The webhook was looked up just before its corpus went, and another one of that name has recalls of its own."""
    await registered(stopped, receiver)
    (before,) = await webhooks.due(stopped.database)
    await stopped.catalog.delete(CORPUS)
    await something_to_recall(stopped)
    await kill(stopped, "a")
    looked = asyncio.Event()

    async def as_it_was(database: Database) -> list[Webhook]:
        looked.set()
        return [before]

    async with delivering(stopped) as deliverer:
        monkeypatch.setattr(webhooks, "due", as_it_was)
        await looked.wait()
        await eventually(lambda: _has_read(deliverer, before))
    assert [] == receiver.got


async def _has_read(deliverer: Deliverer, webhook: Webhook) -> bool:
    await asyncio.gather(*deliverer._running.values(), return_exceptions=True)
    return webhook.webhook_id not in deliverer._running
