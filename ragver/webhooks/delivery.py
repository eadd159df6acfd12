"""Delivers recalls to webhooks: in order, at least once, by one process at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import httpx

from ragver import wire
from ragver.clock import Clock
from ragver.errors import CorpusNotFound, RagverError, Unavailable, WebhookUrlRefused
from ragver.ledger import webhooks
from ragver.ledger.database import Database
from ragver.ledger.recalls import Position, Recalled
from ragver.ledger.webhooks import Webhook
from ragver.recalls import Recalls, described
from ragver.telemetry import Metrics, logger
from ragver.types import Epoch
from ragver.webhooks import signing, targets

POLL_S = 0.5
"""How often to see whether there is something to tell."""
STAND_BY_S = 5.0
"""How often a process that does not deliver asks whether it may."""
SAVED_S = 10.0
"""How often a position is saved that moved on without an event."""
PAGE = 1_000
"""Events that are read at a time: each page of what one huge commit recalls looks at all of it."""
AT_ONCE_MAX = 16
"""Webhooks that are served at the same time; the others wait."""
ANSWER_S_MAX = 15.0
"""How long a receiver may take."""
ATTEMPTS_MAX = 20
"""Attempts at an event before it becomes a dead letter: with the waits between them, some nine hours."""
RETRY_S, RETRY_S_MAX = 1.0, 3_600.0
"""The wait after the first failure, which doubles with each further one, and its bound."""
JITTER = 0.2
"""Waits differ by up to this part, so that failures that came together do not come back together."""
GONE = 410


@dataclass(frozen=True, slots=True)
class _Failure:
    """An attempt to which the receiver did not say yes."""

    error: str
    gone: bool = False
    retry_after_s: float = 0.0


class Deliverer:
    """Delivers for all corpora, for as long as it runs and no other process does."""

    def __init__(
        self, database: Database, recalls: Recalls, clock: Clock, ledger_id: UUID, metrics: Metrics, *, anywhere: bool
    ) -> None:
        self._database = database
        self._recalls = recalls
        self._clock = clock
        self._ledger = ledger_id.hex[:12]
        self._metrics = metrics
        self._anywhere = anywhere
        self._running: dict[int, asyncio.Task[None]] = {}
        self._seen: dict[int, Position] = {}
        """Where nothing is left to tell, though the ledger need not know yet."""
        self._save_at_s: dict[int, float] = {}

    async def run(self) -> None:
        """Work until cancelled. A ledger that is away is waited for."""
        async with httpx.AsyncClient(timeout=ANSWER_S_MAX, follow_redirects=False) as http:
            while True:
                try:
                    async with webhooks.deliverer(self._database) as check:
                        if check is not None:
                            await self._serve(http, check)
                except Unavailable as error:
                    logger.warning("webhooks_wait", code=error.code, detail=error.detail)
                await self._clock.sleep(STAND_BY_S)

    async def _serve(self, http: httpx.AsyncClient, check: Callable[[], Awaitable[object]]) -> None:
        try:
            while True:
                await check()
                for webhook in await webhooks.due(self._database):
                    if webhook.webhook_id not in self._running and len(self._running) < AT_ONCE_MAX:
                        self._begin(http, webhook)
                await self._clock.sleep(POLL_S)
        finally:
            await self._end()

    def _begin(self, http: httpx.AsyncClient, webhook: Webhook) -> None:
        task = asyncio.create_task(self._try_deliver(http, webhook), name=f"webhook {webhook.webhook_id}")
        self._running[webhook.webhook_id] = task
        task.add_done_callback(lambda _: self._running.pop(webhook.webhook_id, None))

    async def _end(self) -> None:
        """Whoever delivers next must find nobody at it."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._seen.clear()
        self._save_at_s.clear()

    async def _try_deliver(self, http: httpx.AsyncClient, webhook: Webhook) -> None:
        """One turn, and trouble with one webhook is not the others'."""
        try:
            await self._redeliver(http, webhook)
            await self._deliver(http, webhook)
        except CorpusNotFound:
            return
        except RagverError as error:
            logger.warning("webhook_waits", webhook=webhook.webhook_id, code=error.code, detail=error.detail)
        except Exception as error:  # noqa: BLE001 - the next turn may go better, and nothing was skipped
            logger.warning("webhook_failed", webhook=webhook.webhook_id, error=str(error), exc_info=error)

    async def _deliver(self, http: httpx.AsyncClient, webhook: Webhook) -> None:
        after = max(webhook.position, self._seen.get(webhook.webhook_id, webhook.position))
        reading = await self._recalls.read(webhook.corpus_name, after, webhook.scope, PAGE)
        if reading.corpus != webhook.corpus:
            # Deleted, and made again under the same name: what goes on there is none of this receiver's business.
            return
        outstanding = self._metrics.recalls_outstanding.labels(webhook.corpus_name, str(webhook.webhook_id))
        outstanding.set(len(reading.recalls))
        attempts = webhook.attempts
        for recalled in reading.recalls:
            failure = await self._post(http, webhook, recalled)
            if failure is not None:
                await self._note(webhook, recalled, failure, attempts + 1)
                return
            # Only now: killed before, the event is told once more, and never not at all.
            if not await webhooks.advance(self._database, webhook, recalled.position, delivered=True):
                # It is gone, or another process went on while this one was paused.
                return
            outstanding.dec()
            attempts = 0
        await self._note_seen(webhook, reading.position)

    async def _note_seen(self, webhook: Webhook, position: Position) -> None:
        """There is nothing to tell up to here; saved now and then, for it can be found out again."""
        now_s = self._clock.monotonic()
        self._seen[webhook.webhook_id] = position
        if position > webhook.position and now_s >= self._save_at_s.get(webhook.webhook_id, 0.0):
            self._save_at_s[webhook.webhook_id] = now_s + SAVED_S
            await webhooks.advance(self._database, webhook, position, delivered=False)

    async def _note(self, webhook: Webhook, recalled: Recalled, failure: _Failure, attempts: int) -> None:
        if failure.gone:
            outcome = "disabled"
            await webhooks.disable(self._database, webhook, failure.error)
        elif attempts >= ATTEMPTS_MAX:
            outcome = "dead_letter"
            await webhooks.bury(self._database, webhook, recalled.position, failure.error)
        else:
            outcome = "failed"
            wait_s = max(wait_after_s(attempts), min(failure.retry_after_s, RETRY_S_MAX))
            await webhooks.failed(self._database, webhook, failure.error, wait_s)
        self._metrics.webhook_deliveries.labels(outcome).inc()
        logger.warning("webhook_not_delivered", webhook=webhook.webhook_id, outcome=outcome, error=failure.error)

    async def _redeliver(self, http: httpx.AsyncClient, webhook: Webhook) -> None:
        """One attempt at each dead letter that somebody wants delivered after all."""
        letters = await webhooks.dead_letters(
            self._database, webhook.corpus, webhook.webhook_id, Position(Epoch(0)), PAGE, only_due=True
        )
        for letter in letters:
            recalled = await self._recalls.at(webhook.corpus_name, letter.position, webhook.scope)
            # An answer that is not kept any more has nothing to be recalled from.
            failure = None if recalled is None else await self._post(http, webhook, recalled)
            if failure is None:
                await webhooks.forget_letter(self._database, webhook, letter.position)
            else:
                await webhooks.letter_failed(self._database, webhook, letter.position, failure.error)

    async def _post(self, http: httpx.AsyncClient, webhook: Webhook, recalled: Recalled) -> _Failure | None:
        """One attempt. Only a status of 200 to 299 counts; what else the receiver says is not read."""
        position = recalled.position
        event_id = f"rcl_{self._ledger}_{webhook.webhook_id}_{position.epoch}_{position.answer}"
        event = wire.WebhookEvent(timestamp=recalled.committed_at, corpus=webhook.corpus_name, data=described(recalled))
        body = event.model_dump_json().encode()
        headers = signing.headers(webhook.secret, event_id, int(self._clock.now().timestamp()), body)
        headers["content-type"] = "application/json"
        try:
            url = targets.checked(webhook.url, anywhere=self._anywhere)
            async with asyncio.timeout(ANSWER_S_MAX), http.stream("POST", url, content=body, headers=headers) as answer:
                failure = _failure(answer)
        except WebhookUrlRefused as error:
            return _Failure(error.detail)
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            return _Failure(f"{type(error).__name__}: {error}")
        if failure is None:
            self._metrics.webhook_deliveries.labels("delivered").inc()
        return failure


def _failure(answer: httpx.Response) -> _Failure | None:
    if answer.is_success:
        return None
    wait = answer.headers.get("retry-after", "")
    seconds = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 10 else 0.0
    return _Failure(f"HTTP {answer.status_code}", answer.status_code == GONE, seconds)


def wait_after_s(attempts: int) -> float:
    """How long to wait after so many failed attempts at one event."""
    wait_s: float = min(RETRY_S * 2.0 ** (attempts - 1), RETRY_S_MAX)
    return wait_s * random.uniform(1 - JITTER, 1 + JITTER)
