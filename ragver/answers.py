"""Answers that are kept beyond their verdict: recorded, looked up, validated again without their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from ragver import validator, wire
from ragver.clock import Clock
from ragver.errors import AnswerContention, AnswerIdTaken, AnswerNotFound
from ragver.ledger import answers
from ragver.ledger.answers import Cited, RecordedAnswer, Recording
from ragver.ledger.chunks import ChunkRecord
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.ledger.database import Database
from ragver.liveness import Views
from ragver.telemetry import Metrics
from ragver.tokens import fingerprint
from ragver.types import WILDCARD, ChunkId, CitationStatus, Decision, Policy, Scope
from ragver.validation import Examined, Validation, facts
from ragver.validator import CHUNK_ID_MAX

RECORD_ATTEMPTS_MAX = 10
"""Validations of one request, when each time something it rests on was touched before it could be recorded."""

_DETAILS = {
    Decision.PASS: "All that it leans on is live.",
    Decision.FLAG: "It may be served with a mark: not all that it leans on is live.",
    Decision.REJECT: "Generate another answer: this one leans on what is no longer live.",
}

Name = tuple[ChunkId | None, int | None]
"""A chunk and its ref; what has neither is no number at all."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """Answers, and the present facts about their chunks."""

    info: CorpusInfo
    head: Head
    answers: dict[str, RecordedAnswer]
    records: dict[ChunkId, ChunkRecord]


class Answers:
    """Keeps what answers rest on, and says what has become of it."""

    def __init__(
        self, database: Database, views: Views, validation: Validation, clock: Clock, metrics: Metrics
    ) -> None:
        self._database = database
        self._views = views
        self._validation = validation
        self._clock = clock
        self._recorded = metrics.answers

    async def validate(self, name: str, request: wire.ValidateRequest) -> wire.ValidateResponse:
        """A verdict, as by ``Validation.validate``, that is on record when it is given.

        The same id may be validated again and again while its text grows: citations and hits add up, and what once
        could go out stays delivered. Raises ``AnswerIdTaken`` where the id is that of another reader's answer.
        """
        key = request.answer_id or str(uuid4())
        for _ in range(RECORD_ATTEMPTS_MAX):
            examined = await self._validation.examine(name, request)
            outcome = await answers.record(self._database, examined.info.corpus_id, _recording(key, examined))
            if outcome.kept:
                self._recorded.labels(examined.verdict.decision.value).inc()
                return self._validation.answer(examined, answer_id=key)
            if outcome.current:
                raise AnswerIdTaken(f"there is an answer {key!r} for other principals; an answer has one reader")
        raise AnswerContention(
            f"commits touched what the answer rests on {RECORD_ATTEMPTS_MAX} times while it was validated; ask again"
        )

    async def get(self, name: str, key: str) -> wire.Answer:
        """A recorded answer. Raises ``AnswerNotFound``."""
        view, _ = await self._views.fresh(name)
        return _described(_found(await answers.by_keys(self._database, view.info.corpus_id, [key]), key))

    async def revalidate(self, name: str, key: str, principals: Sequence[str]) -> wire.RevalidateResponse:
        """Whether the answer may be served now, to a reader with these principals. Raises ``AnswerNotFound``."""
        looked = await self._look(name, [key])
        verdict = _again(_found(looked.answers, key), principals, looked.records)
        return wire.RevalidateResponse(**dict(verdict), **self._moment(looked))

    async def revalidate_many(
        self, name: str, keys: Sequence[str], principals: Sequence[str]
    ) -> wire.RevalidateManyResponse:
        """The same for many, in the order of `keys`; an answer that is not on record is rejected."""
        looked = await self._look(name, keys)
        verdicts = {key: _again(answer, principals, looked.records) for key, answer in looked.answers.items()}
        told = [verdicts.get(key) or _unrecorded(key) for key in keys]
        return wire.RevalidateManyResponse(answers=told, **self._moment(looked))

    async def _look(self, name: str, keys: Sequence[str]) -> _Looked:
        """The answers, and their chunks as of a head that was read after the question (G5)."""
        view, head = await self._views.fresh(name)
        found = await answers.by_keys(self._database, view.info.corpus_id, keys)
        chunk_ids = {chunk.chunk_id for answer in found.values() for chunk in answer.chunks}
        records = await view.records([chunk_id for chunk_id in chunk_ids if chunk_id is not None])
        return _Looked(view.info, head, found, records)

    def _moment(self, looked: _Looked) -> dict[str, Any]:
        return {
            "epoch": looked.head.epoch,
            "checked_at": self._clock.now(),
            "valid_for_ms": looked.info.verdict_ttl_ms,
        }


# ── what is recorded ────────────────────────────────────────────────────────────────────────────────────────


def _recording(key: str, examined: Examined) -> Recording:
    request = examined.question.request
    return Recording(
        key=key,
        snapshot_epoch=examined.snapshot.epoch,
        epoch=examined.head.epoch,
        verdict=examined.verdict.decision,
        policy=request.policy,
        scope=request.scope,
        reader=fingerprint(request.principals),
        labels=answers.label_hashes([WILDCARD, *request.principals]),
        chunks=list(_chunks(examined).values()),
    )


def _chunks(examined: Examined) -> dict[Name, Cited]:
    """What is cited, and the hits that are not. Of several quotes from one chunk the first bad one counts."""
    delivered = None if examined.verdict.decision is Decision.REJECT else examined.head.epoch
    policy = examined.question.request.policy
    chunks: dict[Name, Cited] = {}
    for citation, told in zip(examined.question.citations, examined.verdict.citations, strict=True):
        live = told.status is CitationStatus.LIVE
        # What policy `redact` finds bad is cut out before anything is delivered.
        cited = delivered if live or policy is not Policy.REDACT else None
        chunk_id = None if told.chunk_id is None or int(told.chunk_id) > CHUNK_ID_MAX else ChunkId(int(told.chunk_id))
        name = (chunk_id, told.ref)
        if citation.named and (name not in chunks or not live):
            chunks[name] = Cited(chunk_id, told.ref, told.status, cited, cited)
    for ref, hit in enumerate(examined.snapshot.chunk_ids, 1):
        known = chunks.get((hit, ref), Cited(hit, ref, None, None, None))
        chunks[hit, ref] = replace(known, rested_epoch=delivered)
    return chunks


# ── what has become of it ───────────────────────────────────────────────────────────────────────────────────


def _again(
    answer: RecordedAnswer, principals: Sequence[str], records: Mapping[ChunkId, ChunkRecord]
) -> wire.Revalidation:
    """The rules of validation over what is recorded. What cannot be looked at again stays as it was found: a quote
    was kept out of the record with the rest of the text, and chunks do not change."""
    if answer.delivered_epoch is None:
        return _rejected(answer.key, True, "No verdict ever let this answer go out; generate another.")
    request = wire.ValidateRequest(
        snapshot="", citations=[], policy=answer.policy, scope=answer.scope, principals=list(principals)
    )
    question = validator.Question(request, tuple(_hits(answer)), tuple(_citations(answer)))
    verdict = validator.decide(question, {chunk_id: facts(record) for chunk_id, record in records.items()})
    return wire.Revalidation(
        answer_id=answer.key,
        recorded=True,
        verdict=verdict.decision,
        detail=_DETAILS[verdict.decision],
        citations=verdict.citations,
    )


def _hits(answer: RecordedAnswer) -> Iterator[ChunkId]:
    # What is cited by its chunk id without having been retrieved has no ref.
    return (chunk.chunk_id for chunk in answer.chunks if chunk.ref is not None and chunk.chunk_id is not None)


def _citations(answer: RecordedAnswer) -> Iterator[validator.Citation]:
    """What has to be live for the answer to be served: not what was cut out of it."""
    redacted = answer.policy is Policy.REDACT and answer.verdict is not Decision.REJECT
    for chunk in answer.chunks:
        cut = redacted and chunk.status is not None and chunk.cited_epoch is None
        if chunk.status is None and answer.scope is Scope.CITED:
            continue
        if not cut:
            misquoted = chunk.status is CitationStatus.MISQUOTED
            named = chunk.status is not None
            yield validator.Citation(chunk.ref, chunk.chunk_id, None, named=named, misquoted=misquoted)


def _unrecorded(key: str) -> wire.Revalidation:
    return _rejected(key, False, "Nothing is known of this answer: it was not recorded, or too long ago.")


def _rejected(key: str, recorded: bool, detail: str) -> wire.Revalidation:
    return wire.Revalidation(answer_id=key, recorded=recorded, verdict=Decision.REJECT, detail=detail, citations=[])


def _found(found: Mapping[str, RecordedAnswer], key: str) -> RecordedAnswer:
    if key not in found:
        raise AnswerNotFound(f"there is no recorded answer {key!r}; it was not recorded, or too long ago")
    return found[key]


def _described(answer: RecordedAnswer) -> wire.Answer:
    return wire.Answer(
        answer_id=answer.key,
        recorded_at=answer.recorded_at,
        validated_at=answer.validated_at,
        validations=answer.validations,
        snapshot_epoch=answer.snapshot_epoch,
        verdict=answer.verdict,
        epoch=answer.epoch,
        policy=answer.policy,
        scope=answer.scope,
        delivered_epoch=answer.delivered_epoch,
        delivered_at=answer.delivered_at,
        reader=answer.reader,
        citations=[_citation(chunk, chunk.status) for chunk in answer.chunks if chunk.status is not None],
        hits=[str(chunk_id) for chunk_id in dict.fromkeys(_hits(answer))],
    )


def _citation(chunk: Cited, status: CitationStatus) -> wire.AnswerCitation:
    return wire.AnswerCitation(
        ref=chunk.ref,
        chunk_id=None if chunk.chunk_id is None else str(chunk.chunk_id),
        status=status,
        delivered_epoch=chunk.cited_epoch,
    )
