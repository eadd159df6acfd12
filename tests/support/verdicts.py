"""A validator for gates: the real decision, over facts that a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from ragver import wire
from ragver.types import Cause, ChunkId, Epoch
from ragver.validator import ChunkFacts, Question, decide

HITS = tuple(ChunkId(1041 + number) for number in range(9))
"""What refs 1 to 9 stand for."""
NOW = datetime(2024, 2, 29, tzinfo=UTC)


class Verdicts:
    """Called like a client's `validate`; what it knows can change at any time."""

    def __init__(self, *dead: int, valid_for_ms: int = 60_000) -> None:
        self.dead = {HITS[ref - 1]: Cause.DELETED for ref in dead}
        self.asked: list[wire.ValidateRequest] = []
        self.valid_for_ms = valid_for_ms
        self.errors: list[Exception] = []
        """Raised by the next calls, one each."""
        self.open = asyncio.Event()
        """While it is clear, no answer comes; the requests that wait are in `asked`."""
        self.open.set()
        self.on_answer: Callable[[], None] = lambda: None
        """Done after the decision, before the answer is out."""

    def kill(self, ref: int, cause: Cause = Cause.DELETED) -> None:
        """From now on this hit is dead."""
        self.dead[HITS[ref - 1]] = cause

    async def __call__(self, request: wire.ValidateRequest) -> wire.ValidateResponse:
        self.asked.append(request)
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        question = Question.of(request, HITS)
        verdict = decide(
            question, {chunk_id: self._facts(chunk_id) for chunk_id in question.wanted if chunk_id in HITS}
        )
        self.on_answer()
        return wire.ValidateResponse(
            verdict=verdict.decision,
            epoch=8,
            snapshot_epoch=7,
            checked_at=NOW,
            valid_for_ms=self.valid_for_ms,
            citations=verdict.citations,
        )

    def _facts(self, chunk_id: ChunkId) -> ChunkFacts:
        cause = self.dead.get(chunk_id)
        return ChunkFacts(
            chunk_id=chunk_id,
            born_epoch=Epoch(1),
            died_epoch=None if cause is None else Epoch(8),
            cause=cause,
            document_key=f"{chunk_id}.md",
            document_alive=cause is None,
            acl=("*",),
            version=1,
            current_version=1 if cause is None else None,
            text="It says so.",
        )
