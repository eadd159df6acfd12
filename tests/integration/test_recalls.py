"""Recalls: which delivered answers rest on what has died since, by which commit and why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragver import recalls, wire
from ragver.bootstrap import Services
from ragver.errors import InvalidRequest
from ragver.ledger.recalls import Position
from ragver.types import Epoch, Scope
from tests.support.answers import recorded
from tests.support.api import client_of
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put, rename, set_acl
from tests.support.spine import EXTERNAL, chunk, retrieve
from tests.support.streaming import following

PATH = f"/v1/corpora/{CORPUS}/recalls"


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped, with documents a to e of one chunk each."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        await commit(services, CORPUS, *(put(name, chunks=[chunk(name, rank)]) for rank, name in enumerate("abcde", 1)))
        yield services


async def told(
    services: Services, since: int = 0, *, scope: Scope = Scope.CITED, limit: int = 1_000
) -> list[wire.Recall]:
    """All recalls after an epoch, by pages of `limit`."""
    found: list[wire.Recall] = []
    position = Position(Epoch(since))
    while True:
        page = await services.recalls.page(CORPUS, position, scope, limit)
        found += page.recalls
        position = recalls.position_of(page.next_cursor)
        if not page.more:
            assert Position(Epoch(page.head)) == position
            return found


def lost(recall: wire.Recall) -> list[tuple[str, str]]:
    return [(chunk.document_key, chunk.cause.value) for chunk in recall.chunks]


async def test_an_answer_is_recalled_by_the_commit_that_took_what_it_cites(stopped: Services) -> None:
    """Which, when, who, why, and what stands there now."""
    await recorded(stopped, "So [1] [2].", answer_id="one")
    await commit(stopped, CORPUS, delete("e"))
    made = await commit(stopped, CORPUS, put("a", chunks=[chunk("A", 1)]), delete("b"), actor="ada", reason="spring")
    (recall,) = await told(stopped)
    assert ("one", 1, 3, "ada", "spring") == (
        recall.answer_id,
        recall.delivered_epoch,
        recall.epoch,
        recall.actor,
        recall.reason,
    )
    assert made.committed_at == recall.committed_at > recall.delivered_at
    assert [("a", "superseded"), ("b", "deleted")] == lost(recall)
    assert [(1, 2, True), (2, None, True)] == [(one.ref, one.superseded_by, one.cited) for one in recall.chunks]


async def test_each_commit_recalls_anew(stopped: Services) -> None:
    """An answer that loses two of its chunks to two commits is recalled twice, in the order of the commits."""
    await recorded(stopped, "So [1] [2].", answer_id="one")
    await commit(stopped, CORPUS, delete("b"))
    await recorded(stopped, "So [1].", answer_id="two")
    await commit(stopped, CORPUS, delete("a"))
    assert [(2, "one"), (3, "one"), (3, "two")] == [(one.epoch, one.answer_id) for one in await told(stopped)]
    assert [(3, "one"), (3, "two")] == [(one.epoch, one.answer_id) for one in await told(stopped, since=2)]


async def test_what_was_only_retrieved_counts_with_scope_context(stopped: Services) -> None:
    await recorded(stopped, "So [1].", answer_id="one")
    await commit(stopped, CORPUS, delete("c"), put("a", chunks=[chunk("A", 1)]))
    assert [[("a", "superseded")]] == [lost(one) for one in await told(stopped)]
    (whole,) = await told(stopped, scope=Scope.CONTEXT)
    assert [(1, True), (3, False)] == [(one.ref, one.cited) for one in whole.chunks]


async def test_what_was_not_delivered_is_not_recalled(stopped: Services) -> None:
    """Rejected, or cut out; nor what was dead and marked as such when it went out."""
    found = await retrieve(stopped)
    await recorded(stopped, "So [1] [9].", snapshot=found.snapshot, answer_id="rejected")
    await commit(stopped, CORPUS, delete("b"))
    await recorded(stopped, "One [1]. Two [2].", snapshot=found.snapshot, answer_id="cut", policy="redact")
    await recorded(stopped, "So [2].", snapshot=found.snapshot, answer_id="marked", policy="flag")
    assert [] == await told(stopped)
    await commit(stopped, CORPUS, delete("a"))
    assert [(3, "cut", [("a", "deleted")])] == [(one.epoch, one.answer_id, lost(one)) for one in await told(stopped)]


async def test_what_went_out_before_a_rejection_is_recalled(stopped: Services) -> None:
    """A growing answer, stopped half-way by the very death that recalls what of it had gone out."""
    found = await retrieve(stopped)
    await recorded(stopped, "So [1].", snapshot=found.snapshot, answer_id="one")
    await commit(stopped, CORPUS, delete("a"))
    await recorded(stopped, "So [1]. And [2].", snapshot=found.snapshot, answer_id="one")
    assert [(2, "one")] == [(one.epoch, one.answer_id) for one in await told(stopped)]


async def test_edits_and_renames_that_keep_a_chunk_recall_nothing(stopped: Services) -> None:
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a", 1), chunk("more", 6)]))
    await recorded(stopped, "So [1].", answer_id="one")
    await commit(stopped, CORPUS, put("a", chunks=[chunk("a", 1), chunk("other", 6)]))
    await commit(stopped, CORPUS, rename("a", "z"))
    assert [] == await told(stopped)
    await commit(stopped, CORPUS, delete("z"))
    assert [[("z", "deleted")]] == [lost(one) for one in await told(stopped)]


async def test_g08_a_reader_from_whom_a_document_is_taken_is_told_of(stopped: Services) -> None:
    """By the commit after which none of the reader's labels was on the list any more: not by one that left another of
    them there, nor again by the next; and again when it was given back and taken once more."""
    await commit(stopped, CORPUS, set_acl("a", "group:hr", "user:ada"))
    await recorded(stopped, "So [1].", principals=["group:hr", "user:eve"], answer_id="one")
    await recorded(stopped, "So [1].", principals=["user:ada"], answer_id="other")
    await commit(stopped, CORPUS, set_acl("a", "user:eve", "user:ada"))
    assert [] == await told(stopped)
    for labels in (["user:ada"], ["user:ada", "user:bob"], ["*"], ["user:ada"]):
        await commit(stopped, CORPUS, set_acl("a", *labels))
    assert [(4, "one"), (7, "one")] == [(one.epoch, one.answer_id) for one in await told(stopped)]
    assert [[("a", "forbidden")]] * 2 == [lost(one) for one in await told(stopped)]


async def test_g09_an_erasure_recalls_what_was_alive_and_what_was_dead(stopped: Services) -> None:
    """What had been superseded before is told of once more, as erased, at the epoch of the erasure; with the keys
    erased too, recalls do not name them either."""
    await recorded(stopped, "So [1].", answer_id="dead")
    await recorded(stopped, "So [2].", answer_id="alive")
    await commit(stopped, CORPUS, put("a", chunks=[chunk("A", 1)]))
    request = wire.ErasureRequest(keys=["a", "b"], reason="asked for", keys_too=True)
    receipt = await stopped.erasures.erase(CORPUS, request)
    found = await told(stopped)
    assert [(2, "dead"), (receipt.epoch, "dead"), (receipt.epoch, "alive")] == [
        (one.epoch, one.answer_id) for one in found
    ]
    assert {"erased"} == {cause for one in found for _, cause in lost(one)}
    assert {"a", "b"}.isdisjoint(key for one in found for key, _ in lost(one))


# ── pages ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2, 3, 1_000])
async def test_pages_tell_each_recall_once(stopped: Services, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """In the order of epochs and answers, whatever the size of a page and however short a span of epochs."""
    found = await retrieve(stopped)
    for number in range(4):
        await recorded(stopped, "So [1] [2] [3].", snapshot=found.snapshot, answer_id=f"answer-{number}")
    for name in "abc":
        await commit(stopped, CORPUS, delete(name), put(f"new-{name}", chunks=[chunk("x", 9), chunk("y", 9)]))
    monkeypatch.setattr("ragver.ledger.recalls.WINDOW_ROWS_MAX", limit)
    everything = [(one.epoch, one.answer_id) for one in await told(stopped, limit=limit)]
    assert [(epoch, f"answer-{number}") for epoch in (2, 3, 4) for number in range(4)] == everything


async def test_a_read_ends_somewhere_also_where_nothing_is_found(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be empty and still have a cursor that is further on."""
    for number in range(6):
        await commit(stopped, CORPUS, put("a", chunks=[chunk(f"a{number}", 1)]))
    monkeypatch.setattr("ragver.ledger.recalls.WINDOW_ROWS_MAX", 1)
    monkeypatch.setattr("ragver.recalls.SPANS_MAX", 2)
    page = await stopped.recalls.page(CORPUS, Position(Epoch(0)), Scope.CITED, 10)
    assert ([], True) == (page.recalls, page.more)
    assert Position(Epoch(0)) < recalls.position_of(page.next_cursor) < Position(Epoch(page.head))
    assert [] == await told(stopped)


@pytest.mark.parametrize("cursor", ["", "x", "1.", ".1", "1.2.3", "-1", "1" * 30, "١"])
def test_a_cursor_that_was_not_given_out_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        recalls.position_of(cursor)


@pytest.mark.parametrize("position", [Position(Epoch(0)), Position(Epoch(7)), Position(Epoch(7), 3)])
def test_a_cursor_is_its_position(position: Position) -> None:
    assert position == recalls.position_of(recalls.cursor_of(position))


# ── over HTTP ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_over_http(stopped: Services) -> None:
    await recorded(stopped, "So [1].", answer_id="one")
    await commit(stopped, CORPUS, delete("a"))
    async with client_of(stopped) as client:
        page = (await client.get(PATH)).json()
        assert (["one"], "2", False) == (
            [one["answer_id"] for one in page["recalls"]],
            page["next_cursor"],
            page["more"],
        )
        assert [] == (await client.get(PATH, params={"cursor": page["next_cursor"]})).json()["recalls"]
        assert [] == (await client.get(PATH, params={"since_epoch": 2})).json()["recalls"]
        assert 422 == (await client.get(PATH, params={"cursor": "nonsense"})).status_code


async def test_recalls_can_be_followed(stopped: Services) -> None:
    """As server-sent events: what there is and what comes, and from the last event on after a break."""
    await recorded(stopped, "So [1] [2].", answer_id="one")
    await commit(stopped, CORPUS, delete("a"))
    async with following(stopped, PATH) as feed:
        first = await feed.next()
        assert ("recall", "one", 2) == (
            first.name,
            json.loads(first.data)["answer_id"],
            json.loads(first.data)["epoch"],
        )
        await commit(stopped, CORPUS, delete("b"))
        second = await feed.next()
        assert 3 == json.loads(second.data)["epoch"]
    async with following(stopped, PATH, last_event_id=first.id) as feed:
        assert second == await feed.next()


async def test_a_feed_without_recalls_moves_its_id_on(stopped: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reconnects after a long silence does not have everything looked through again."""
    monkeypatch.setattr("ragver.api.feed.HEARTBEAT_S", 0.0)
    async with following(stopped, PATH) as feed:
        beat = await feed.next()
    assert ("1", "", "") == (beat.id, beat.name, beat.data)
