"""G5 of stored answers: whether one may be served again is told by the head of now, and what is recorded with a
verdict is true at the moment it is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.ledger import answers
from ragver.ledger.answers import Outcome, Recording
from ragver.ledger.corpora import Head
from ragver.ledger.database import Database
from ragver.liveness import CorpusView
from ragver.types import CorpusId, Decision
from tests.support.answers import recorded
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, chunk, retrieve, second_process

pytestmark = pytest.mark.guarantee(5)

RACES = 100


@pytest.fixture
async def two(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Services, Services]]:
    """One process that writes and another that checks."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        yield services, await second_process(services)


async def test_g05_no_stored_answer_is_served_after_a_commit_was_acknowledged(two: tuple[Services, Services]) -> None:
    """Asked without a pause while another process deletes: from the acknowledgement on, it is rejected."""
    writes, checks = two
    served = 0
    for number in range(RACES):
        await commit(writes, CORPUS, put("a", chunks=[chunk(f"a{number}", 1)]))
        await recorded(checks, answer_id=f"{number}")
        gone = asyncio.create_task(commit(writes, CORPUS, delete("a")))
        while True:
            acknowledged = gone.done()
            told = (await checks.answers.revalidate_many(CORPUS, [f"{number}"], [])).answers[0]
            if acknowledged:
                assert Decision.REJECT is told.verdict
                break
            served += told.verdict is Decision.PASS
    assert served, "no race: every answer was asked for after the commit"


async def test_g05_serving_from_the_view_serves_what_is_dead(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the newest head seen, in place of a fresh one."""
    writes, checks = two
    await commit(writes, CORPUS, put("a", chunks=[chunk("a", 1)]))
    await recorded(checks, answer_id="one")
    await commit(writes, CORPUS, delete("a"))

    async def known(view: CorpusView) -> Head:
        assert view.last is not None
        return view.last

    with monkeypatch.context() as without:
        without.setattr(CorpusView, "fresh", known)
        assert Decision.PASS is (await checks.answers.revalidate(CORPUS, "one", [])).verdict
    assert Decision.REJECT is (await checks.answers.revalidate(CORPUS, "one", [])).verdict


async def test_g05_a_commit_between_verdict_and_record_is_reflected(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What dies after the verdict and before the record makes another verdict; other commits do not."""
    writes, checks = two
    await commit(writes, CORPUS, put("a", chunks=[chunk("a", 1)]), put("b", chunks=[chunk("b", 2)]))
    found = await retrieve(checks, k=1)
    between: list[wire.Operation] = [put("b", chunks=[chunk("b2", 2)]), delete("a")]
    keep, outcomes = answers.record, list[Outcome]()

    async def late(database: Database, corpus: CorpusId, recording: Recording) -> Outcome:
        if between:
            await commit(writes, CORPUS, between.pop(0))
        outcomes.append(await keep(database, corpus, recording))
        return outcomes[-1]

    monkeypatch.setattr(answers, "record", late)
    first = await recorded(checks, snapshot=found.snapshot, answer_id="one")
    assert (Decision.PASS, 1, 1) == (first.verdict, first.epoch, len(outcomes))
    second = await recorded(checks, snapshot=found.snapshot, answer_id="two")
    assert (Decision.REJECT, 3) == (second.verdict, second.epoch)
    assert [(True, True), (False, False), (True, True)] == [(one.current, one.kept) for one in outcomes]
    assert (await checks.answers.get(CORPUS, "two")).delivered_epoch is None
