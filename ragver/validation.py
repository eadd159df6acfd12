"""The check in front of every answer: a fresh head, the facts about what is cited, a verdict."""

from __future__ import annotations

from ragver import validator, wire
from ragver.clock import Clock
from ragver.errors import EpochAhead, SnapshotExpired
from ragver.ledger.chunks import ChunkRecord
from ragver.liveness import Views
from ragver.telemetry import Metrics
from ragver.tokens import SnapshotTokens
from ragver.types import CitationStatus, Decision


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
        view, head = await self._views.fresh(name)
        snapshot = self._tokens.read(request.snapshot, view.info.corpus_id)
        if snapshot.epoch < head.horizon:
            raise SnapshotExpired(f"epoch {snapshot.epoch} lies before the horizon {head.horizon}; retrieve again")
        if snapshot.epoch > head.epoch:
            raise EpochAhead(f"the snapshot's epoch {snapshot.epoch} has not been issued; the head is {head.epoch}")
        question = validator.Question.of(request, snapshot.chunk_ids)
        records = await view.records(question.wanted)
        facts = {chunk_id: _facts(record) for chunk_id, record in records.items()}
        verdict = validator.decide(question, facts)
        self._count(verdict)
        redacted = {} if verdict.answer is None else {"answer": verdict.answer}
        return wire.ValidateResponse(
            verdict=verdict.decision,
            epoch=head.epoch,
            snapshot_epoch=snapshot.epoch,
            checked_at=self._clock.now(),
            valid_for_ms=view.info.verdict_ttl_ms,
            citations=verdict.citations,
            **redacted,
        )

    def _count(self, verdict: validator.Verdict) -> None:
        self._verdicts[verdict.decision].inc()
        for citation in verdict.citations:
            self._citations[citation.status].inc()


def _facts(record: ChunkRecord) -> validator.ChunkFacts:
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
