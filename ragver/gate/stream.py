"""The gate around a model's stream, for its reader. The asynchronous face."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from ragver.citations.cited import Document
from ragver.clock import Clock
from ragver.gate.events import AnswerRetracted, End, Event, Released, Retraction
from ragver.gate.flow import AsyncFlow, AsyncValidate
from ragver.gate.holding import Terms
from ragver.gate.sources import TextStream
from ragver.types import Policy, Scope


class AsyncGatedStream:
    """A model's text, of which nothing comes out that was not validated. To be read once, by one reader.

    - ``async for text in gated`` gives the text in pieces, each a string with a deadline (``Released``). It raises
      ``AnswerRetracted`` where the answer cannot stand. With the policies `flag` and `redact`, ``end`` then tells
      whether all of it is good.
    - ``gated.events()`` gives everything that happens, retractions included, as typed events.
    - The verdict's lease is looked at when a piece is handed over; a late verdict is asked for again.
    - Whatever the model's stream raises is raised when all that was complete before has gone out.
    - A verdict that cannot be had is an error, after some attempts, and nothing more goes out.
    - Whoever stops reading early closes it (``async with``, or ``aclose``): that closes the model's stream too.
    """

    def __init__(
        self,
        validate: AsyncValidate,
        snapshot: str,
        stream: TextStream,
        *,
        policy: Policy = Policy.STRICT,
        scope: Scope = Scope.CITED,
        principals: Sequence[str] = (),
        answer_id: str | None = None,
        documents: Iterable[Document] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """With `answer_id`, what is let out is put on record under it. With `documents`, what the model was given, the
        citations that Anthropic sends beside the text become markers in it. Raises ``TypeError`` for what is no stream.
        """
        terms = Terms(snapshot, policy, scope, tuple(principals), answer_id)
        self._flow = AsyncFlow(validate, terms, stream, documents, clock)
        self.answer_id = answer_id
        self.end: End | None = None
        """The last event, once the whole answer is out."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop: nothing more comes out, nothing more is asked, and the model's stream is closed."""
        await self._flow.close()

    def __aiter__(self) -> AsyncIterator[Released]:
        return self._texts()

    async def _texts(self) -> AsyncGenerator[Released, None]:
        async with aclosing(self.events()) as events:
            async for event in events:
                if isinstance(event, Released):
                    yield event
                elif isinstance(event, Retraction):
                    raise AnswerRetracted(event)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Everything that happens; ends with a ``Retraction`` or an ``End``."""
        flow = self._flow
        await flow.start()
        async with self:
            while True:
                offer = await flow.offer()
                if offer.judged.retraction is not None:
                    # The model need not write on while the reader takes back what it showed.
                    await self.aclose()
                    yield offer.judged.retraction
                    return
                # Here the text changes hands, and nothing is awaited between the look at the lease and that.
                if offer.text.late:
                    flow.ask_again()
                    continue
                flow.accept(offer)
                if offer.text:
                    yield offer.text
                for note in offer.judged.notes:
                    yield note
                if offer.last:
                    self.end = await flow.end(offer)
                    yield self.end
                    return
