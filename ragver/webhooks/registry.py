"""Webhooks as those who own them see them."""

from __future__ import annotations

from ragver import wire
from ragver.ledger import webhooks
from ragver.ledger.database import Database
from ragver.ledger.recalls import Position
from ragver.ledger.webhooks import DeadLetter, Webhook
from ragver.liveness import Views
from ragver.recalls import cursor_of, position_of
from ragver.types import CorpusId, Epoch
from ragver.webhooks import signing, targets


class Webhooks:
    """Registers webhooks and shows how they are."""

    def __init__(self, database: Database, views: Views, *, anywhere: bool) -> None:
        self._database = database
        self._views = views
        self._anywhere = anywhere

    async def add(self, name: str, wanted: wire.WebhookCreate) -> wire.WebhookCreated:
        """Tell a URL what is recalled. Raises ``WebhookUrlRefused``, ``TooManyWebhooks``."""
        url = targets.checked(wanted.url, anywhere=self._anywhere)
        secret = signing.new_secret() if wanted.secret is None else signing.read(wanted.secret)
        since = None if wanted.since_epoch is None else Epoch(wanted.since_epoch)
        made = await webhooks.add(self._database, await self._corpus(name), url, secret, wanted.scope, since)
        return wire.WebhookCreated(**dict(_described(made)), secret=signing.shown(secret))

    async def all(self, name: str) -> list[wire.Webhook]:
        """The corpus's webhooks, oldest first."""
        return [_described(found) for found in await webhooks.all_of(self._database, await self._corpus(name))]

    async def remove(self, name: str, webhook_id: int) -> None:
        """Tell it nothing more. Raises ``WebhookNotFound``."""
        await webhooks.delete(self._database, await self._corpus(name), webhook_id)

    async def dead_letters(self, name: str, webhook_id: int, cursor: str | None, limit: int) -> wire.DeadLetterPage:
        """What could not be delivered, oldest first. Raises ``WebhookNotFound``."""
        corpus = await self._corpus(name)
        await webhooks.get(self._database, corpus, webhook_id)
        after = Position(Epoch(0)) if cursor is None else position_of(cursor)
        found = await webhooks.dead_letters(self._database, corpus, webhook_id, after, limit + 1)
        page = [_letter(letter) for letter in found[:limit]]
        more = len(found) > limit
        return wire.DeadLetterPage(dead_letters=page, next_cursor=page[-1].recall_id if more else None)

    async def redeliver(self, name: str, webhook_id: int, request: wire.RedeliverRequest) -> wire.Redelivery:
        """Have dead letters delivered again. Raises ``WebhookNotFound``."""
        corpus = await self._corpus(name)
        await webhooks.get(self._database, corpus, webhook_id)
        positions = None if request.recall_ids is None else [position_of(one) for one in request.recall_ids]
        return wire.Redelivery(due=await webhooks.redeliver(self._database, corpus, webhook_id, positions))

    async def _corpus(self, name: str) -> CorpusId:
        view, _ = await self._views.fresh(name)
        return view.info.corpus_id


def _described(webhook: Webhook) -> wire.Webhook:
    return wire.Webhook(
        webhook_id=str(webhook.webhook_id),
        url=webhook.url,
        scope=webhook.scope,
        created_at=webhook.created_at,
        state="disabled" if webhook.disabled_at is not None else "retrying" if webhook.attempts else "active",
        cursor=cursor_of(webhook.position),
        attempts=webhook.attempts,
        next_attempt_at=webhook.next_attempt_at,
        last_error=webhook.last_error,
        delivered_at=webhook.delivered_at,
        dead_letters=webhook.dead_letters,
    )


def _letter(letter: DeadLetter) -> wire.DeadLetter:
    return wire.DeadLetter(
        recall_id=cursor_of(letter.position),
        attempts=letter.attempts,
        error=letter.error,
        failed_at=letter.failed_at,
        due=letter.due,
    )
