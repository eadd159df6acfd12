"""Answers on record: what is kept of them, what adds up, who may have them again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import AnswerIdTaken, AnswerNotFound, CorpusNotFound
from ragver.ledger import answers
from ragver.ledger.answers import label_hashes
from ragver.types import Decision
from tests.support.answers import cited, recorded
from tests.support.api import client_of
from tests.support.ledger import query
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, chunk, retrieve, sql

MARK = "the words of the answer"


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, with three documents of one chunk each."""
    async with open_test_services(database_url, tmp_path / "data", answers_kept_s=3600) as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, *(put(name, chunks=[chunk(name, rank)]) for rank, name in enumerate("abc", 1)))
        yield services


async def test_a_recorded_answer_can_be_looked_up(stopped: Services) -> None:
    """What was cited and what else was retrieved, when, on which verdict, for whom."""
    found = await retrieve(stopped)
    verdict = await recorded(stopped, "So [1] [3].", snapshot=found.snapshot, answer_id="one")
    assert "one" == verdict.answer_id
    kept = await stopped.answers.get(CORPUS, "one")
    assert [(1, "live", 1), (3, "live", 1)] == cited(kept)
    assert [hit.chunk_id for hit in found.hits] == kept.hits
    assert (1, 1, 1, Decision.PASS) == (kept.snapshot_epoch, kept.epoch, kept.delivered_epoch, kept.verdict)
    assert kept.delivered_at == kept.recorded_at == kept.validated_at


async def test_without_an_id_the_server_makes_one(stopped: Services) -> None:
    first, second = await recorded(stopped), await recorded(stopped)
    assert first.answer_id is not None
    assert second.answer_id is not None
    assert first.answer_id != second.answer_id
    assert 1 == (await stopped.answers.get(CORPUS, first.answer_id)).validations


async def test_without_record_nothing_is_kept(stopped: Services) -> None:
    found = await retrieve(stopped)
    verdict = await stopped.validation.validate(CORPUS, wire.ValidateRequest(snapshot=found.snapshot, answer="[1]"))
    assert "answer_id" not in verdict.model_fields_set
    assert [(0, 0)] == [
        tuple(row)
        for row in await query(
            stopped.database.url, "SELECT (SELECT count(*) FROM answer), (SELECT count(*) FROM answer_citation)"
        )
    ]


async def test_the_text_is_not_kept(stopped: Services) -> None:
    """Neither the answer's nor a quote's."""
    await commit(stopped, CORPUS, put("quoted", chunks=[chunk(f"It says: {MARK}", 0)]))
    found = await retrieve(stopped)
    await recorded(stopped, f"{MARK} [1]", snapshot=found.snapshot, citations=[{"ref": 1, "quote": MARK}])
    for table in ("answer", "answer_citation"):
        rows = await query(stopped.database.url, f"SELECT t::text AS shown FROM {table} t")
        assert rows
        assert not any(MARK in row["shown"] for row in rows)


async def test_a_growing_answer_adds_up(stopped: Services) -> None:
    """A gate validates one stream again and again under one id: citations and hits add up, each with the epoch at
    which it could first go out; a rejection in the end does not undo what was delivered before."""
    found = await retrieve(stopped)
    await recorded(stopped, "So [1].", snapshot=found.snapshot, answer_id="one")
    await commit(stopped, CORPUS, put("d", chunks=[chunk("d", 4)]))
    await recorded(stopped, "So [1]. And [2].", snapshot=found.snapshot, answer_id="one")
    await commit(stopped, CORPUS, delete("c"))
    last = await recorded(stopped, "So [1]. And [2]. But [3] [7].", snapshot=found.snapshot, answer_id="one")
    assert Decision.REJECT is last.verdict
    kept = await stopped.answers.get(CORPUS, "one")
    assert [(1, "live", 1), (2, "live", 2), (3, "deleted", None), (7, "unknown", None)] == cited(kept)
    assert (3, Decision.REJECT, 3, 1) == (kept.validations, kept.verdict, kept.epoch, kept.delivered_epoch)
    assert kept.delivered_at == kept.recorded_at < kept.validated_at


async def test_an_answer_may_rest_on_several_snapshots(stopped: Services) -> None:
    """Under one id, as when a model asks twice."""
    one = await retrieve(stopped, k=1)
    await recorded(stopped, "So [1].", snapshot=one.snapshot, answer_id="one")
    other = await retrieve(stopped, k=2, vector=[-1.0, 0.0, 0.0, 0.0])
    await recorded(stopped, "So [2].", snapshot=other.snapshot, answer_id="one")
    kept = await stopped.answers.get(CORPUS, "one")
    assert {hit.chunk_id for hit in (*one.hits, *other.hits)} == set(kept.hits)
    assert 2 == kept.validations


async def test_what_was_cut_out_is_not_delivered(stopped: Services) -> None:
    """Under policy redact; under policy flag it goes out with a mark."""
    found = await retrieve(stopped)
    await commit(stopped, CORPUS, delete("b"))
    both = "First [1]. Second [2]."
    await recorded(stopped, both, snapshot=found.snapshot, answer_id="cut", policy="redact")
    await recorded(stopped, both, snapshot=found.snapshot, answer_id="marked", policy="flag")
    assert [(1, "live", 2), (2, "deleted", None)] == cited(await stopped.answers.get(CORPUS, "cut"))
    assert [(1, "live", 2), (2, "deleted", 2)] == cited(await stopped.answers.get(CORPUS, "marked"))


async def test_citations_that_stand_for_nothing_are_kept_too(stopped: Services) -> None:
    """Made-up refs and chunk ids, and numbers that no ledger could hold."""
    verdict = await recorded(stopped, "So [1] [9] [999999] [9999999999999999999] [99999999999999999999999].")
    assert Decision.REJECT is verdict.verdict
    assert verdict.answer_id is not None
    kept = await stopped.answers.get(CORPUS, verdict.answer_id)
    assert {"live", "unknown"} == {status for _, status, _ in cited(kept)}
    assert (None, "unknown", None) in cited(kept)
    assert "999999" in [citation.chunk_id for citation in kept.citations]


async def test_of_several_quotes_a_bad_one_counts(stopped: Services) -> None:
    citations = [{"ref": 1, "quote": "a"}, {"ref": 1, "quote": "z"}, {"ref": 1}]
    verdict = await recorded(stopped, "So.", citations=citations, answer_id="one")
    assert ["live", "misquoted", "live"] == [one.status for one in verdict.citations]
    assert [(1, "misquoted", None)] == cited(await stopped.answers.get(CORPUS, "one"))


async def test_an_answer_has_one_reader(stopped: Services) -> None:
    """The id of an answer for other principals is refused, before any verdict is given."""
    await recorded(stopped, answer_id="one", principals=["user:ada"])
    with pytest.raises(AnswerIdTaken):
        await recorded(stopped, answer_id="one", principals=["user:bob"])
    assert 1 == (await stopped.answers.get(CORPUS, "one")).validations


async def test_what_is_not_on_record_is_not_found(stopped: Services) -> None:
    for asked in (stopped.answers.get(CORPUS, "nothing"), stopped.answers.revalidate(CORPUS, "nothing", [])):
        with pytest.raises(AnswerNotFound):
            await asked


async def test_a_label_is_hashed_alike_here_and_in_the_ledger(database_url: str) -> None:
    labels = ["*", "group:hr", "user:ädä"]
    rows = await query(
        database_url, "SELECT substr(sha256(convert_to(u, 'UTF8')), 1, 8) FROM unnest($1::text[]) u", labels
    )
    assert label_hashes(labels) == sorted(row[0] for row in rows)


# ── served again ────────────────────────────────────────────────────────────────────────────────────────────


async def test_revalidation_says_what_has_become_of_it(stopped: Services) -> None:
    await recorded(stopped, "So [1].", answer_id="one")
    verdict = await stopped.answers.revalidate(CORPUS, "one", [])
    assert (Decision.PASS, 1) == (verdict.verdict, verdict.epoch)
    await commit(stopped, CORPUS, put("a", chunks=[chunk("another text", 1)]))
    verdict = await stopped.answers.revalidate(CORPUS, "one", [])
    assert (Decision.REJECT, 2) == (verdict.verdict, verdict.epoch)
    assert [("superseded", 2, 2)] == [(one.status, one.died_epoch, one.superseded_by) for one in verdict.citations]


async def test_scope_and_policy_are_those_of_the_record(stopped: Services) -> None:
    """A hit that was not cited matters to scope `context` alone; policy `flag` flags; a redacted answer cannot be cut
    again, since its text is not here."""
    found = await retrieve(stopped)
    wanted: dict[str, dict[str, Any]] = {
        "cited": {},
        "context": {"scope": "context"},
        "flag": {"policy": "flag"},
        "redact": {"policy": "redact"},
    }
    for key, how in wanted.items():
        answer = "So [2]." if key in ("flag", "redact") else "So [1]."
        await recorded(stopped, answer, snapshot=found.snapshot, answer_id=key, **how)
    await commit(stopped, CORPUS, delete("b"))
    told = await stopped.answers.revalidate_many(CORPUS, list(wanted), [])
    assert ["pass", "reject", "flag", "reject"] == [one.verdict for one in told.answers]


async def test_what_was_cut_does_not_stand_in_the_way(stopped: Services) -> None:
    found = await retrieve(stopped)
    await commit(stopped, CORPUS, delete("b"))
    await recorded(stopped, "First [1]. Second [2].", snapshot=found.snapshot, answer_id="cut", policy="redact")
    assert Decision.PASS is (await stopped.answers.revalidate(CORPUS, "cut", [])).verdict


async def test_a_bad_quote_stays_bad(stopped: Services) -> None:
    citations = [{"ref": 1, "quote": "not there"}]
    await recorded(stopped, "So.", citations=citations, answer_id="one", policy="flag")
    again = await stopped.answers.revalidate(CORPUS, "one", [])
    assert (Decision.FLAG, ["misquoted"]) == (again.verdict, [one.status for one in again.citations])


async def test_many_are_asked_about_at_once(stopped: Services) -> None:
    """In the order asked for, what is not on record among them; never a pass for what was never delivered."""
    found = await retrieve(stopped)
    await recorded(stopped, "So [1].", snapshot=found.snapshot, answer_id="one")
    await recorded(stopped, "So [9].", snapshot=found.snapshot, answer_id="rejected")
    told = await stopped.answers.revalidate_many(CORPUS, ["gone", "one", "rejected", "one"], [])
    assert [("gone", False, "reject"), ("one", True, "pass"), ("rejected", True, "reject"), ("one", True, "pass")] == [
        (one.answer_id, one.recorded, one.verdict) for one in told.answers
    ]


# ── their end ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_old_answers_are_forgotten(stopped: Services) -> None:
    """By the database's clock, with their citations, in batches; what was validated lately stays."""
    for number in range(5):
        await recorded(stopped, answer_id=f"old-{number}")
    await sql(stopped, "UPDATE answer SET validated_at = now() - interval '2 hours'")
    await recorded(stopped, answer_id="old-0")
    info = (await stopped.views.get(CORPUS)).info
    assert 3 == await answers.forget(stopped.database, info.corpus_id, 3600, 3)
    assert [1, 0] == [(await stopped.retention.collect(CORPUS)).answers for _ in range(2)]
    (left,) = await query(stopped.database.url, "SELECT count(*), count(DISTINCT answer_id) FROM answer_citation")
    assert (3, 1) == tuple(left)
    assert 2 == (await stopped.answers.get(CORPUS, "old-0")).validations


async def test_a_corpus_takes_its_answers_with_it(stopped: Services) -> None:
    await recorded(stopped, answer_id="one")
    await stopped.catalog.delete(CORPUS)
    (left,) = await query(
        stopped.database.url, "SELECT (SELECT count(*) FROM answer) + (SELECT count(*) FROM answer_citation)"
    )
    assert 0 == left[0]
    with pytest.raises(CorpusNotFound):
        await stopped.answers.get(CORPUS, "one")


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_over_http(stopped: Services) -> None:
    found = await retrieve(stopped)
    async with client_of(stopped) as client:
        body = {"snapshot": found.snapshot, "answer": "So [1].", "record": True, "answer_id": "one"}
        verdict = await client.post(f"/v1/corpora/{CORPUS}/validate", json=body)
        assert (200, "one") == (verdict.status_code, verdict.json()["answer_id"])
        kept = await client.get(f"/v1/corpora/{CORPUS}/answers/one")
        assert "pass" == kept.json()["verdict"]
        again = await client.post(f"/v1/corpora/{CORPUS}/answers/one/revalidate", json={})
        assert ("pass", True) == (again.json()["verdict"], again.json()["valid_for_ms"] > 0)
        many = await client.post(f"/v1/corpora/{CORPUS}/answers/revalidate", json={"ids": ["one", "two"]})
        assert ["pass", "reject"] == [one["verdict"] for one in many.json()["answers"]]
        await _refused(client, 422, {**body, "record": False})
        await _refused(client, 422, {**body, "answer_id": "no/slash"})
        await _refused(client, 409, {**body, "principals": ["user:bob"]})


async def _refused(client: httpx.AsyncClient, status: int, body: dict[str, object]) -> None:
    answer = await client.post(f"/v1/corpora/{CORPUS}/validate", json=body)
    assert status == answer.status_code, answer.text
