"""What must hold after a recorded history was imported. Serves the acceptance test and the full-scale run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ragver import wire
from ragver.client import AsyncClient
from ragver.types import CitationStatus, Level
from tests.support.recorded import AskedQuestion, RecordedHistory

K = 10
VISIBLE_K = 50
"""Hits among which the passage itself must be; pages share passages word for word."""


@dataclass(slots=True)
class Outcome:
    """What the questions showed."""

    asked: int = 0
    recalled: int = 0
    """Questions whose answer was among the first ten hits of the question itself."""
    statuses: Counter[CitationStatus] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def check_documents(client: AsyncClient, corpus: str, history: RecordedHistory, records: list[int]) -> None:
    """The documents at the epochs of `records` are those of a plain replay up to there, to the last character."""
    for record, expected in zip(records, history.documents_at(*records), strict=True):
        epoch = record + 1
        listed = [document async for document in client.each_document(corpus, at_epoch=epoch)]
        assert sorted(expected) == sorted(document.key for document in listed)
        for path, text in expected.items():
            assert text == (await client.document(corpus, path, at_epoch=epoch)).text


async def check_questions(client: AsyncClient, corpus: str, history: RecordedHistory) -> Outcome:
    """Each answer is visible while it lived, and a citation of it is told its fate at the head."""
    outcome = Outcome()
    for question in history.questions():
        await _check_question(client, corpus, history, question, outcome)
    return outcome


async def _check_question(
    client: AsyncClient, corpus: str, history: RecordedHistory, question: AskedQuestion, outcome: Outcome
) -> None:
    record = len(history) - 1 if question.last_alive is None else question.last_alive
    epoch = record + 1
    chunk = await _passage(client, corpus, question, epoch)
    visible = await _retrieve(client, corpus, chunk.text, epoch, VISIBLE_K)
    hit = next((hit for hit in visible.hits if hit.chunk_id == chunk.chunk_id), None)
    if hit is None:
        outcome.wrong.append(f"{question.id}: the passage is not visible at epoch {epoch}")
        return
    found = await _retrieve(client, corpus, question.question, epoch, K)
    outcome.asked += 1
    outcome.recalled += any(question.answer_span in hit.text or hit.chunk_id == chunk.chunk_id for hit in found.hits)
    verdict = await client.validate(
        corpus, wire.ValidateRequest(snapshot=visible.snapshot, citations=[wire.CitationInput(ref=hit.ref)])
    )
    status, expected = verdict.citations[0].status, _fate(history, question, record)
    outcome.statuses[status] += 1
    if status is not expected:
        outcome.wrong.append(f"{question.id}: {status} where the record says {expected}")


async def _passage(client: AsyncClient, corpus: str, question: AskedQuestion, epoch: int) -> wire.Chunk:
    """The chunk in which the answer begins."""
    document = await client.document(corpus, question.path, at_epoch=epoch)
    begins = document.text.index(question.answer_span)
    passed = 0
    for chunk in document.chunks:
        passed += len(chunk.text)
        if passed > begins:
            return chunk
    raise AssertionError(f"{question.id}: the chunks do not make up the text")


async def _retrieve(client: AsyncClient, corpus: str, query: str, epoch: int, k: int) -> wire.RetrieveResponse:
    consistency = wire.Consistency(level=Level.EXACT, epoch=epoch)
    return await client.retrieve(corpus, wire.RetrieveRequest(query=query, k=k, consistency=consistency))


def _fate(history: RecordedHistory, question: AskedQuestion, record: int) -> CitationStatus:
    if question.dead_at is None:
        return CitationStatus.LIVE
    lives_on = history.lives_on_as(question.path, record) is not None
    return CitationStatus.SUPERSEDED if lives_on else CitationStatus.DELETED
