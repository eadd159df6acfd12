"""The check in front of every answer: a fresh head, the facts about what is cited, a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ragver import validator, wire
from ragver.clock import Clock
from ragver.errors import EpochAhead, SnapshotExpired
from ragver.ledger.chunks import ChunkRecord
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.liveness import Views
from ragver.telemetry import Metrics
from ragver.tokens import Snapshot, SnapshotTokens
from ragver.types import CitationStatus, Decision


@dataclass(frozen=True, slots=True)
class Examined:
    """A request, what it was checked against, and the verdict."""

    info: CorpusInfo
    head: Head
    snapshot: Snapshot
    question: validator.Question
    verdict: validator.Verdict
    checked_at: datetime


class Validation:
    """Validates against the ledger; no index takes part."""

    def __init__(self, views: Views, tokens: SnapshotTokens, clock: Clock, metrics: Metrics) -> None:
        self._views = views
        self._tokens = tokens
        self._clock = clock
        # Looking a labelled metric up costs more than counting.
        self._verdicts = {decision: metrics.verdicts.labels(decision.value) for decision in Decision}
        self._citations = {status: metrics.citations.labels(status.value) for status in CitationStatus}

    async def validate(self, name: str, request: wire.ValidateRequest) -> wire.ValidateResponse:
        """The verdict on what was generated from a snapshot; it reflects every commit acknowledged before the call.

        Raises ``CorpusNotFound``, ``SnapshotInvalid``, ``SnapshotForeign``, ``SnapshotExpired`` or
        ``LedgerUnavailable``: a check that cannot be made is never a pass.
        """
        return self.answer(await self.examine(name, request))

    async def examine(self, name: str, request: wire.ValidateRequest) -> Examined:
        """The verdict and all that it rests on; raises what ``validate`` does."""
        view, head = await self._views.fresh(name)
        snapshot = self._tokens.read(request.snapshot, view.info.corpus_id)
        if snapshot.epoch < head.horizon:
            raise SnapshotExpired(f"epoch {snapshot.epoch} lies before the horizon {head.horizon}; retrieve again")
        if snapshot.epoch > head.epoch:
            raise EpochAhead(f"the snapshot's epoch {snapshot.epoch} has not been issued; the head is {head.epoch}")
        await view.require(snapshot)
        question = validator.Question.of(request, snapshot.chunk_ids)
        records = await view.records(question.wanted)
        verdict = validator.decide(question, {chunk_id: facts(record) for chunk_id, record in records.items()})
        return Examined(view.info, head, snapshot, question, verdict, self._clock.now())

    def answer(self, examined: Examined, **more: Any) -> wire.ValidateResponse:
        """What the client is told, and `more`; the verdict is counted."""
        verdict = examined.verdict
        self._count(verdict)
        if verdict.answer is not None:
            more["answer"] = verdict.answer
        return wire.ValidateResponse(
            verdict=verdict.decision,
            epoch=examined.head.epoch,
            snapshot_epoch=examined.snapshot.epoch,
            checked_at=examined.checked_at,
            valid_for_ms=examined.info.verdict_ttl_ms,
            citations=verdict.citations,
            **more,
        )

    def _count(self, verdict: validator.Verdict) -> None:
        self._verdicts[verdict.decision].inc()
        for citation in verdict.citations:
            self._citations[citation.status].inc()


def facts(record: ChunkRecord) -> validator.ChunkFacts:
    """What the validator wants to know of a chunk."""
    return validator.ChunkFacts(
        chunk_id=record.chunk_id,
        born_epoch=record.born_epoch,
        died_epoch=record.died_epoch,
        cause=record.cause,
        document_key=record.key,
        document_alive=record.document_alive,
        acl=record.acl,
        version=record.version,
        current_version=record.document_version if record.document_alive else None,
        text=record.text,
    )
