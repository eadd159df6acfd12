"""What goes on behind a gate: pull, ask, and offer what may go out.

Two tasks work in the background. One pulls text from the model into what is held back, whatever the validator
does, up to `HELD_CHARACTERS_MAX`. The other asks for a verdict as soon as there is a claim that one could let
out, one request at a time; what is completed meanwhile goes with the next. The reader takes what was judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from ragver import wire
from ragver.citations.cited import Document
from ragver.clock import Clock, LeaseClock
from ragver.errors import ClaimTooLong, RagverError, VerdictOverdue
from ragver.gate.events import End, Released
from ragver.gate.holding import Ask, Holding, Judgement, Terms
from ragver.gate.sources import CLOSE_S_MAX, source_of
from ragver.gate.surrogates import Mended

HELD_CHARACTERS_MAX = 262_144
"""With more than this held back, the model is not read on until something has gone out."""
VERDICT_S_MAX = 30.0
"""The longest wait for one answer of the validator."""
ATTEMPTS_MAX = 4
"""Times that a request is sent which fails in a way that may pass."""
RETRY_S = 0.1
"""The wait before the second attempt; it doubles for each further one."""
LATE_MAX = 5
"""Verdicts in a row that may come too late before the gate gives up."""

AsyncValidate = Callable[[wire.ValidateRequest], Awaitable[wire.ValidateResponse]]
"""Asks the validator, in this process or over HTTP. Raises ``RagverError`` if there is no verdict."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, and until when it may be acted on."""

    ask: Ask
    verdict: wire.ValidateResponse
    deadline_s: float
    """Counted from before it was asked for."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a verdict lets out, if it is taken in time."""

    judged: Judgement
    text: Released
    last: bool


class AsyncFlow:
    """The two tasks behind a gate, and what is between them and the reader."""

    def __init__(
        self,
        validate: AsyncValidate,
        terms: Terms,
        stream: object,
        documents: Iterable[Document] | None,
        clock: Clock | None,
    ) -> None:
        self.holding = Holding(terms)
        self.clock = clock or LeaseClock()
        self._validate = validate
        self._source = source_of(stream, documents)
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._failure: Exception | None = None
        """Of the model's stream."""
        self._changed = asyncio.Event()
        """There may be something to ask."""
        self._room = asyncio.Event()
        """The model may be read on."""
        self._taken = asyncio.Event()
        """The reader has the answer that was brought last, so that the next may be asked for."""
        self._answers: asyncio.Queue[Answer | Exception] = asyncio.Queue(1)
        self._late = 0

    async def start(self) -> None:
        """Begin to read the model, and to ask; to be done once."""
        if self._closed or self._tasks:
            raise RuntimeError("a gated stream is read once")
        self._tasks = [
            asyncio.create_task(self._pull(), name="ragver gate: pull"),
            asyncio.create_task(self._ask(), name="ragver gate: ask"),
        ]

    async def close(self) -> None:
        """End both tasks and the model's stream."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await self._source.close()

    # ── the model's side ────────────────────────────────────────────────────────────────────────────────────

    async def _pull(self) -> None:
        mended = Mended()
        try:
            while (text := await self._source.next()) is not None:
                self.holding.feed(mended.feed(text))
                self._changed.set()
                await self._wait_for_room()
            self.holding.feed(mended.feed(self._source.end()) + mended.end())
            self.holding.end()
        except Exception as error:  # noqa: BLE001 - it is the reader's, after what came before it
            self._failure = error
        self._changed.set()

    async def _wait_for_room(self) -> None:
        while self._is_full:
            self._room.clear()
            await self._room.wait()

    @property
    def _is_full(self) -> bool:
        return self.holding.held > HELD_CHARACTERS_MAX

    # ── the validator's side ────────────────────────────────────────────────────────────────────────────────

    async def _ask(self) -> None:
        try:
            while True:
                self._taken.clear()
                ask = await self._next_ask()
                await self._answers.put(await self._answered(ask))
                await self._taken.wait()
        except Exception as error:  # noqa: BLE001 - it is the reader's
            await self._answers.put(error)

    async def _next_ask(self) -> Ask:
        while True:
            self._changed.clear()
            # Before it gives up, it looks at all there is.
            ask = self.holding.ask(thoroughly=self._is_full or self._failure is not None)
            if ask is not None:
                return ask
            if self._failure is not None:
                raise self._failure
            if self._is_full:
                raise ClaimTooLong(
                    f"the model has written {self.holding.held} characters without an end at which they could be "
                    "let out; ask it for shorter paragraphs and lists"
                )
            await self._changed.wait()

    async def _answered(self, ask: Ask) -> Answer:
        for attempt in range(ATTEMPTS_MAX):
            asked_s = self.clock.monotonic()
            try:
                verdict = await self._verdict(ask.request)
            except RagverError as error:
                if not error.retryable or attempt + 1 == ATTEMPTS_MAX:
                    raise
                await self.clock.sleep(RETRY_S * 2**attempt)
            else:
                return Answer(ask, verdict, asked_s + verdict.valid_for_ms / 1000)
        raise AssertionError("unreachable")

    async def _verdict(self, request: wire.ValidateRequest) -> wire.ValidateResponse:
        try:
            async with asyncio.timeout(VERDICT_S_MAX):
                return await self._validate(request)
        except TimeoutError as error:
            raise VerdictOverdue(f"no verdict came within {VERDICT_S_MAX:.0f} s; nothing more is released") from error

    # ── the reader's side ───────────────────────────────────────────────────────────────────────────────────

    async def offer(self) -> Offer:
        """What the next verdict lets out. Raises what asking for it, or the model's stream, raised."""
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        judged = self.holding.judge(answer.ask, answer.verdict)
        return Offer(judged, Released(judged.text, answer.deadline_s, self.clock.monotonic), answer.ask.last)

    def accept(self, offer: Offer) -> None:
        """Its text goes out now."""
        self.holding.accept(offer.judged)
        self._late = 0
        if not offer.last:
            self._go_on()

    async def end(self, offer: Offer) -> End:
        """The last event, after the last offer was accepted."""
        return End(self.holding.decision, self.holding.released, offer.judged.verdict)

    def ask_again(self) -> None:
        """The verdict came too late to be acted on."""
        self._late += 1
        if self._late == LATE_MAX:
            raise VerdictOverdue(
                f"{LATE_MAX} verdicts in a row had run out before their text could be released; "
                "raise the corpus's verdict_ttl_ms, or ask from nearer by"
            )
        self._go_on()

    def _go_on(self) -> None:
        self._taken.set()
        self._room.set()
