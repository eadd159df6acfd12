"""The gate as the client gives it: both faces, over the real services, on record if wanted."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import ragver
from ragver.citations import Source
from ragver.client import ApiError
from ragver.client.answering import PolicyName
from ragver.errors import ModelFailed
from ragver.gate import End, Event, GatedStream, Released, Retraction
from ragver.types import Decision

LEAVE = "Everyone has 30 days of leave a year."
CAKE = "Bring cake on your birthday."
WAIT_S_MAX = 30.0
WRITTEN = ["You have 30 days of leave [1]. ", "Ask ", "for cake [2]. ", "Enjoy."]


@pytest.fixture(scope="module")
def opened(module_data_dir: Path) -> Iterator[ragver.Client]:
    with ragver.open(module_data_dir) as client:
        yield client


@pytest.fixture
def policies(opened: ragver.Client, request: pytest.FixtureRequest) -> ragver.Corpus:
    """A corpus of two pages, of which the first is about leave."""
    name = request.node.name.replace("[", "-").strip("]")
    opened.create_corpus(name, verdict_ttl_ms=5_000)
    corpus = opened[name]
    corpus.put("leave.md", LEAVE)
    corpus.put("cake.md", CAKE)
    return corpus


def snapshot(policies: ragver.Corpus) -> str:
    found = policies.retrieve("How many days of leave do I have?", k=2)
    assert [LEAVE, CAKE] == [hit.text for hit in found.hits]
    return found.snapshot


def test_an_answer_comes_out_and_is_on_record(policies: ragver.Corpus) -> None:
    """Under its id, with what it cites, and without its text."""
    gated = policies.gate(snapshot(policies), WRITTEN, record=True)
    assert "".join(WRITTEN) == "".join(gated)
    assert isinstance(gated.end, End)
    assert gated.answer_id is not None
    answer = policies.answer(gated.answer_id)
    assert [1, 2] == sorted(cited.ref or 0 for cited in answer.citations)
    assert Decision.PASS is policies.revalidate(gated.answer_id).verdict
    policies.delete("cake.md")
    assert Decision.REJECT is policies.revalidate(gated.answer_id).verdict


def deleting(policies: ragver.Corpus, first_is_out: threading.Event) -> Iterator[str]:
    """What a model writes while a page is deleted that it goes on to cite."""
    yield from WRITTEN[:2]
    assert first_is_out.wait(WAIT_S_MAX)
    policies.delete("cake.md")
    yield from WRITTEN[2:]


def read(gated: GatedStream, first_is_out: threading.Event) -> list[Event]:
    happened: list[Event] = []
    for event in gated.events():
        happened.append(event)
        first_is_out.set()
    return happened


def test_what_a_retracted_answer_showed_is_on_record(policies: ragver.Corpus) -> None:
    """So that a later death of it is found as well."""
    out = threading.Event()
    gated = policies.gate(snapshot(policies), deleting(policies, out), record=True, answer_id="a-1")
    *_, retraction = read(gated, out)
    assert isinstance(retraction, Retraction)
    assert "cake.md no longer exists" in retraction.detail
    went_out = {cited.ref: cited.delivered_epoch is not None for cited in policies.answer("a-1").citations}
    assert {1: True, 2: False} == went_out


@pytest.mark.parametrize("policy", ["flag", "redact"])
def test_policies_by_name(policies: ragver.Corpus, policy: PolicyName) -> None:
    out = threading.Event()
    *_, end = read(policies.gate(snapshot(policies), deleting(policies, out), policy=policy), out)
    assert isinstance(end, End)
    assert Decision.FLAG is end.decision
    assert ("Ask for cake" in end.released) == (policy == "flag")


def test_citations_beside_the_text(policies: ragver.Corpus) -> None:
    """Point to the documents that the model was given."""
    found = policies.retrieve("How many days of leave do I have?", k=2)
    cite = {"type": "page_location", "document_index": 0, "cited_text": "30 days"}
    stream = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "You have 30 days."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": cite}},
        {"type": "content_block_stop", "index": 0},
    ]
    gated = policies.gate(found.snapshot, stream, documents=[Source(hit.ref) for hit in found.hits])
    assert "You have 30 days. [1]" == "".join(gated)


def test_options_that_do_not_fit_are_told_at_once(policies: ragver.Corpus) -> None:
    with pytest.raises(ApiError, match="policy"):
        policies.gate("token", WRITTEN, policy="lenient")  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="record"):
        policies.gate("token", WRITTEN, answer_id="a-1")


def test_a_snapshot_that_is_none_lets_nothing_out(policies: ragver.Corpus) -> None:
    with pytest.raises(ApiError, match="signature") as caught:
        list(policies.gate("token", WRITTEN))
    assert "snapshot_invalid" == caught.value.code


async def test_the_asynchronous_face(data_dir: Path) -> None:
    """And a model that says that it failed."""

    async def model() -> AsyncIterator[object]:
        for text in WRITTEN[:2]:
            yield {"type": "response.output_text.delta", "delta": text}
        yield {"type": "error", "message": "Overloaded"}

    async with ragver.open(data_dir) as client:
        await client.create_corpus("policies")
        policies = client["policies"]
        await policies.put("leave.md", LEAVE)
        found = await policies.retrieve("leave?", k=1)
        happened: list[Event] = []

        async def read() -> None:
            async for event in policies.gate(found.snapshot, model()).events():
                happened.append(event)  # noqa: PERF401 - what came before the error is wanted too

        with pytest.raises(ModelFailed, match="Overloaded"):
            await read()
    assert "You have 30 days of leave [1]." == "".join(event for event in happened if isinstance(event, Released))
