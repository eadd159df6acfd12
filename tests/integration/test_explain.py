"""Explanations: the story of a chunk, a document and an answer, in order, with who and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import AnswerNotFound, ChunkNotFound, DocumentNotFound
from ragver.types import ChunkId
from tests.support.answers import recorded
from tests.support.api import client_of
from tests.support.cli import CommandLine
from tests.support.services import (
    CORPUS,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_acl,
)
from tests.support.spine import EXTERNAL, chunk, index_all, retrieve


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        yield services


async def lived(services: Services) -> str:
    """A chunk's whole life: its id."""
    text = [chunk("stays", 1)]
    await commit(services, CORPUS, put("a", chunks=[*text, chunk("goes", 2)]), actor="ada", reason="first")
    chunk_id = (await retrieve(services, k=1)).hits[0].chunk_id
    await commit(services, CORPUS, put("a", chunks=text), actor="bob")
    await commit(services, CORPUS, rename("a", "b"))
    await commit(services, CORPUS, set_acl("b", "*", "group:hr"))
    await index_all(services)
    await recorded(services, "So [1].", answer_id="one")
    await commit(services, CORPUS, put("b", chunks=[chunk("new", 1)]), actor="eve", reason="spring cleaning")
    await recorded(services, "So.", citations=[{"chunk_id": chunk_id}], answer_id="late")
    return chunk_id


def happened(story: wire.Story) -> list[tuple[int, str]]:
    return [(event.epoch, event.event) for event in story.events]


async def test_a_chunks_story(stopped: Services) -> None:
    """Born, carried through an edit, a rename and another access list, indexed, cited, delivered, superseded."""
    chunk_id = await lived(stopped)
    story = await stopped.explanations.chunk(CORPUS, ChunkId(int(chunk_id)))
    assert [
        (1, "born"),
        (1, "indexed"),
        (2, "version"),
        (3, "renamed"),
        (4, "version"),
        (4, "retrieved"),
        (4, "validated"),
        (4, "delivered"),
        (5, "died"),
        (5, "validated"),
    ] == happened(story)
    born, death = story.events[0], story.events[-2]
    assert ("ada", "first", "a", 1) == (born.actor, born.reason, born.document_key, born.version)
    assert ("eve", "spring cleaning") == (death.actor, death.reason)
    assert "superseded by version 5 of b" == death.detail
    assert "renamed from a" in story.events[3].detail
    assert "another access list" in story.events[4].detail
    assert "superseded; verdict reject" in story.events[-1].detail
    assert "dead since epoch 5: superseded" == story.state
    times = [event.at for event in story.events if event.at is not None]
    assert sorted(times) == times
    assert story.complete


async def test_a_documents_story(stopped: Services) -> None:
    """Its versions by what became of their chunks, under every key that it had; and answers that cite it."""
    await lived(stopped)
    await commit(stopped, CORPUS, delete("b"), reason="obsolete")
    await commit(stopped, CORPUS, put("b", chunks=[chunk("again", 1)]))
    story = await stopped.explanations.document(CORPUS, "b")
    commits = [event for event in story.events if event.answer_id is None]
    assert ["born", "version", "renamed", "version", "version", "died", "born"] == [event.event for event in commits]
    assert "version 1 of a: 2 chunks" == commits[0].detail
    assert "version 2 of a: 0 new, 1 kept, 1 gone" == commits[1].detail
    assert ("obsolete", "version 5 of b deleted") == (commits[5].reason, commits[5].detail)
    assert {"one", "late"} == {event.answer_id for event in story.events} - {None}
    assert "alive: version 6 of b" == story.state


async def test_an_answers_story(stopped: Services) -> None:
    """What it cites, when that was born and died, and whether it had gone out by then."""
    await lived(stopped)
    story = await stopped.explanations.answer(CORPUS, "one")
    assert [(1, "born"), (4, "retrieved"), (4, "validated"), (4, "delivered"), (5, "died")] == happened(story)
    assert "[1] superseded by version 5: recalled, for it had gone out" == story.events[-1].detail
    assert "delivered; citations: 1, dead by now: 1" == story.state
    late = await stopped.explanations.answer(CORPUS, "late")
    assert "never delivered" == late.state


async def test_what_never_was_has_no_story(stopped: Services) -> None:
    with pytest.raises(ChunkNotFound):
        await stopped.explanations.chunk(CORPUS, ChunkId(1))
    with pytest.raises(DocumentNotFound):
        await stopped.explanations.document(CORPUS, "nothing")
    with pytest.raises(AnswerNotFound):
        await stopped.explanations.answer(CORPUS, "nothing")


async def test_a_long_story_says_that_it_is_not_all(stopped: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    chunk_id = await lived(stopped)
    for bound in ("VERSIONS_MAX", "MENTIONS_MAX"):
        with monkeypatch.context() as few:
            few.setattr(f"ragver.ledger.stories.{bound}", 1)
            assert not (await stopped.explanations.document(CORPUS, "b")).complete
            assert not (await stopped.explanations.chunk(CORPUS, ChunkId(int(chunk_id)))).complete


async def test_over_http(stopped: Services) -> None:
    chunk_id = await lived(stopped)
    path = f"/v1/corpora/{CORPUS}/explain"
    async with client_of(stopped) as client:
        for subject in ({"chunk_id": chunk_id}, {"key": "b"}, {"answer_id": "one"}):
            assert 5 == (await client.get(path, params=subject)).json()["head"]
        assert 422 == (await client.get(path)).status_code
        assert 422 == (await client.get(path, params={"key": "b", "chunk_id": chunk_id})).status_code
        assert 404 == (await client.get(path, params={"chunk_id": "9" * 19})).status_code


def test_the_command_finds_out_what_is_meant(module_data_dir: Path) -> None:
    """A chunk by its number, a document by its key, an answer by its id; and says if it is none of them."""
    ragver = CommandLine(module_data_dir)
    ragver("corpus", "create", "notes")
    with ragver.serving():
        ragver("put", "a.md", "-", "--actor", "ada", stdin="Everyone has 30 days of leave.")
        found = ragver("retrieve", "leave", "--json").json
        answer = ("--snapshot", found["snapshot"], "--answer", "So [1].")
        verdict = ragver("validate", *answer, "--record", "--answer-id", "one", "--json")
        assert "one" == verdict.json["answer_id"]
        ragver("delete", "a.md", "--reason", "obsolete")
        chunk_id = found["hits"][0]["chunk_id"]
        subjects = [ragver("explain", name, "--json").json["subject"] for name in (chunk_id, "a.md", "one")]
        assert ["chunk", "document", "answer"] == subjects
        assert "deleted with its document" in ragver("explain", chunk_id).out
        assert ["one"] == [one["answer_id"] for one in ragver("recalls", "--json").json["recalls"]]
        assert ["2", "one", "a.md deleted", "", "obsolete"] == [
            cell for place, cell in enumerate(ragver("recalls").rows[0]) if place != 1
        ]
        missing = ragver("explain", "nothing/of/the/kind")
        assert (2, True) == (missing.status, "no chunk, document or recorded answer" in missing.err)
