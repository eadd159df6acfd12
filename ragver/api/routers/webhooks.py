"""Webhooks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from ragver import wire
from ragver.api.access import ADMIN
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora/{corpus}/webhooks", tags=["answers"], dependencies=[ADMIN])

WebhookPath = Annotated[int, Path(ge=1, le=2**53)]


@router.post("", status_code=201, summary="Register a webhook", response_model=wire.WebhookCreated, responses={409: {}})
async def add(corpus: CorpusPath, body: wire.WebhookCreate, services: Use) -> wire.WebhookCreated:
    """Have every recall posted to a URL: a `WebhookEvent`, with the headers of Standard Webhooks. Check the signature
    with `secret`, which is shown this once.

    Events come in order and at least once: take `webhook-id` as a key of idempotency. What is not answered by a status
    of 200 to 299 within 15 s is tried again, in growing intervals, for some nine hours; then it becomes a dead letter.
    """
    return await services.webhooks.add(corpus, body)


@router.get("", summary="List webhooks", response_model=wire.WebhookList)
async def list_all(corpus: CorpusPath, services: Use) -> wire.WebhookList:
    """The corpus's webhooks: how far each is, and what its receiver said last."""
    return wire.WebhookList(webhooks=await services.webhooks.all(corpus))


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook")
async def remove(corpus: CorpusPath, webhook_id: WebhookPath, services: Use) -> None:
    """Nothing more is sent to it; its dead letters go with it."""
    await services.webhooks.remove(corpus, webhook_id)


@router.get("/{webhook_id}/dead-letters", summary="List dead letters", response_model=wire.DeadLetterPage)
async def dead_letters(
    corpus: CorpusPath,
    webhook_id: WebhookPath,
    services: Use,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> wire.DeadLetterPage:
    """Recalls that the receiver would not have, oldest first."""
    return await services.webhooks.dead_letters(corpus, webhook_id, cursor, limit)


@router.post(
    "/{webhook_id}/dead-letters/redeliver", summary="Deliver dead letters again", response_model=wire.Redelivery
)
async def redeliver(
    corpus: CorpusPath, webhook_id: WebhookPath, body: wire.RedeliverRequest, services: Use
) -> wire.Redelivery:
    """One more attempt at each of them, soon, and at the next event too; what then fails stays a dead letter."""
    return await services.webhooks.redeliver(corpus, webhook_id, body)
