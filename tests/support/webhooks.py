"""Webhooks at work in a test: something to recall, somebody who delivers, and how far that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from ragver import wire
from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.ledger import corpora
from ragver.telemetry import Metrics
from ragver.types import Scope
from ragver.webhooks.delivery import Deliverer
from tests.support.answers import recorded
from tests.support.receiver import Receiver
from tests.support.services import CORPUS, commit, delete, make_corpus, put
from tests.support.spine import EXTERNAL, chunk

NAMES = "abcdef"
WAIT_S_MAX = 20


async def something_to_recall(services: Services) -> None:
    """A corpus of some documents, and an answer on record for each of them, with its name."""
    await make_corpus(services, embedding=EXTERNAL)
    await commit(services, CORPUS, *(put(name, chunks=[chunk(name, rank)]) for rank, name in enumerate(NAMES, 1)))
    for ref, name in enumerate(NAMES, 1):
        await recorded(services, f"So [{ref}].", answer_id=name)


async def kill(services: Services, *names: str) -> None:
    """A commit for each of these documents, which recalls its answer."""
    for name in names:
        await commit(services, CORPUS, delete(name), reason=f"no {name}")


async def registered(services: Services, receiver: Receiver, scope: Scope = Scope.CITED) -> int:
    """A webhook that goes to the receiver."""
    made = await services.webhooks.add(CORPUS, wire.WebhookCreate(url=receiver.url, scope=scope))
    receiver.secret = made.secret
    return int(made.webhook_id)


@asynccontextmanager
async def delivering(services: Services, kind: type[Deliverer] = Deliverer) -> AsyncIterator[Deliverer]:
    """A deliverer at work, as in a process of its own, until the end of the block."""
    ledger_id = await corpora.ledger_id(services.database)
    deliverer = kind(services.database, services.recalls, SystemClock(), ledger_id, Metrics(), anywhere=False)
    running = asyncio.create_task(deliverer.run())
    try:
        yield deliverer
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def shown(services: Services, **wanted: object) -> wire.Webhook:
    """The only webhook, once it is as wanted."""
    found: list[wire.Webhook] = []

    async def as_wanted() -> bool:
        found[:] = await services.webhooks.all(CORPUS)
        return all(getattr(found[0], name) == value for name, value in wanted.items())

    await eventually(as_wanted)
    return found[0]


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Return once the check holds; fails if it does not come to that."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not await check():  # noqa: ASYNC110 - another process's doing, looked up in the ledger
            await asyncio.sleep(0.01)
