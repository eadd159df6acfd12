"""Chunks that are scored in the process: the overlay, and the tail that is kept from read to read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver.errors import IndexLagging
from ragver.filters import parse
from ragver.index.port import Match
from ragver.index.scoring import normalised, scores
from ragver.ledger import chunks
from ragver.ledger.chunks import Change
from ragver.ledger.database import Database
from ragver.overlay import Overlay, Question, Tail, merged, overlay_of, without
from ragver.types import ChunkId, CorpusId, Distance, DocumentId, Epoch, FieldType, GenerationId

DIMENSIONS = 3
HR = parse({"field": "team", "eq": "hr"}, {"team": FieldType.KEYWORD})

_vectors = st.lists(st.integers(-3, 3), min_size=DIMENSIONS, max_size=DIMENSIONS).map(
    lambda values: np.array(values, np.float32)
)


def change(chunk_id: int, born: int = 1, died: int | None = None, **more: Any) -> Change:
    """A chunk that everybody may read and that lies in the east."""
    told: dict[str, Any] = {
        "touched_epoch": Epoch(died or born),
        "acl": ("*",),
        "metadata": {},
        "vector": np.array([1, 0, 0], np.float32),
        **more,
    }
    return Change(ChunkId(chunk_id), DocumentId(1), Epoch(born), None if died is None else Epoch(died), **told)


@st.composite
def _changes(draw: st.DrawFn) -> list[Change]:
    found = []
    for chunk_id in draw(st.lists(st.integers(1, 40), max_size=30)):
        born = draw(st.integers(1, 5))
        died = draw(st.none() | st.integers(born + 1, 7))
        acl = draw(st.sampled_from([("*",), ("group:hr",), ("group:hr", "user:ada")]))
        metadata = draw(st.sampled_from([{}, {"team": "hr"}, {"team": "it"}]))
        vector = draw(st.none() | _vectors)
        found.append(change(chunk_id, born, died, acl=acl, metadata=metadata, vector=vector))
    return found


def question(epoch: int = 1, **more: Any) -> Question:
    asked: dict[str, Any] = {"vector": np.array([1, 0, 0], np.float32), "principals": (), "filter": None, **more}
    return Question(epoch=Epoch(epoch), **asked)


@given(
    _changes(),
    st.sampled_from(Distance),
    st.builds(
        question,
        st.integers(0, 7),
        vector=_vectors,
        principals=st.sampled_from([(), ("user:ada",), ("group:hr",)]),
        filter=st.sampled_from([None, HR]),
    ),
    st.integers(1, 40),
)
def test_the_best_are_those_a_plain_look_at_each_finds(
    changes: list[Change], distance: Distance, asked: Question, limit: int
) -> None:
    """Alive at the epoch, readable, matching; nearest first; of a chunk's changes the last counts."""
    found = overlay_of(changes, distance, DIMENSIONS).best(asked, limit)
    newest = {change.chunk_id: change for change in changes}
    eligible = {
        chunk_id: float(scores(distance, known.vector[np.newaxis], asked.vector)[0])
        for chunk_id, known in newest.items()
        if known.vector is not None
        and known.born_epoch <= asked.epoch < (known.died_epoch or 99)
        and {"*", *asked.principals} & set(known.acl)
        and (asked.filter is None or known.metadata.get("team") == "hr")
    }
    expected = sorted(eligible.values(), reverse=distance.larger_is_closer)[:limit]
    assert pytest.approx(expected, abs=1e-5) == [match.score for match in found]
    assert len({match.chunk_id for match in found}) == len(found)
    assert all(eligible[match.chunk_id] == pytest.approx(match.score, abs=1e-5) for match in found)


def test_the_overlay_grows_beyond_its_first_room() -> None:
    changes = [change(n, vector=np.array([1, n / 1000, 0], np.float32)) for n in range(1, 2_000)]
    found = overlay_of(changes, Distance.EUCLID, DIMENSIONS).best(question(), 1_999)
    assert list(range(1, 2_000)) == [match.chunk_id for match in found]


def test_more_than_the_first_few_are_looked_through() -> None:
    """The few best by score may all be forbidden; then the rest is sorted too."""
    hidden = [change(n, acl=("group:hr",)) for n in range(1, 500)]
    seen = change(999, vector=np.array([-1, 0, 0], np.float32))
    found = overlay_of([*hidden, seen], Distance.COSINE, DIMENSIONS).best(question(), 1)
    assert [Match(ChunkId(999), -1.0)] == found


def test_what_another_overlay_speaks_for_is_left_to_it() -> None:
    other = overlay_of([change(1, died=2)], Distance.COSINE, DIMENSIONS)
    both = overlay_of([change(1), change(2)], Distance.COSINE, DIMENSIONS)
    assert [2] == [match.chunk_id for match in both.best(question(), 10, other)]
    assert [Match(ChunkId(3), 0.5)] == without([Match(ChunkId(1), 1.0), Match(ChunkId(3), 0.5)], [both, other])


@pytest.mark.parametrize(("distance", "expected"), [(Distance.DOT, [2, 3, 1]), (Distance.EUCLID, [1, 2, 3])])
def test_merged_lists_go_by_score_and_then_by_id(distance: Distance, expected: list[int]) -> None:
    more = [Match(ChunkId(3), 0.5), Match(ChunkId(1), 0.1)]
    assert expected == [match.chunk_id for match in merged(more, [Match(ChunkId(2), 0.5)], distance)]


def test_a_score_is_that_of_stored_vectors() -> None:
    """A cosine overlay holds unit vectors, and the question need not be one."""
    stored = normalised(Distance.COSINE, np.array([3, 4, 0], np.float32))
    (match,) = overlay_of([change(1, vector=stored)], Distance.COSINE, DIMENSIONS).best(
        question(vector=np.array([10, 0, 0], np.float32)), 1
    )
    assert pytest.approx(0.6) == match.score


# ── the tail ────────────────────────────────────────────────────────────────────────────────────────────────


class Log:
    """A ledger reduced to what the tail asks of it: the newest change of each chunk."""

    def __init__(self) -> None:
        self.newest: dict[ChunkId, Change] = {}
        self.head = Epoch(0)
        self.rows_read = 0

    def commit(self, *chunk_ids: int) -> None:
        self.head = Epoch(self.head + 1)
        for chunk_id in chunk_ids:
            known = self.newest.get(ChunkId(chunk_id))
            made = change(chunk_id, self.head) if known is None else replace(known, touched_epoch=self.head)
            self.newest[ChunkId(chunk_id)] = made

    async def changes(
        self, _: object, __: object, ___: object, after: tuple[Epoch, ChunkId], limit: int
    ) -> list[Change]:
        later = [made for made in self.newest.values() if (made.touched_epoch, made.chunk_id) > after]
        rows = sorted(later, key=lambda made: (made.touched_epoch, made.chunk_id))[:limit]
        self.rows_read += len(rows)
        return rows


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    monkeypatch.setattr(chunks, "changes", made.changes)
    return made


def _tail(rows_max: int = 1_000) -> Tail:
    nowhere = cast("Database", None)
    return Tail(nowhere, CorpusId(1), GenerationId(1), Distance.COSINE, DIMENSIONS, rows_max)


def _held(overlay: Overlay) -> dict[ChunkId, Epoch]:
    return {made.chunk_id: made.touched_epoch for made in overlay.since(Epoch(0))}


@pytest.mark.parametrize("seed", range(30))
async def test_the_tail_always_covers_what_was_asked_for(log: Log, seed: int) -> None:
    """Readers that go by newer and older heads, an applied epoch that moves and may go back: nothing is missing."""
    chance = random.Random(seed)
    tail = _tail()
    applied = 0
    for _ in range(60):
        for _ in range(chance.randrange(4)):
            log.commit(*chance.sample(range(1, 400), chance.randrange(1, 60)))
        applied = chance.choice([applied, chance.randint(applied, log.head), chance.randint(0, log.head)])
        head = chance.randint(applied, log.head)
        held = _held(await tail.cover(Epoch(applied), Epoch(head)))
        needed = {id_: made.touched_epoch for id_, made in log.newest.items() if applied < made.touched_epoch <= head}
        assert needed.items() <= held.items()


async def test_a_tail_that_is_kept_is_not_read_again(log: Log) -> None:
    tail = _tail()
    for n in range(10):
        log.commit(n)
        await tail.cover(Epoch(0), log.head)
    assert 10 == log.rows_read
    await tail.cover(Epoch(5), log.head)
    assert 10 == log.rows_read


async def test_a_tail_sheds_what_is_applied(log: Log) -> None:
    """When most of a large tail has been applied, it shrinks, without reading anything again."""
    tail = _tail()
    log.commit(*range(1, 600))
    log.commit(*range(600, 700))
    assert 699 == len(await tail.cover(Epoch(0), Epoch(2)))
    read = log.rows_read
    assert 100 == len(await tail.cover(Epoch(1), Epoch(2)))
    assert 0 == len(await tail.cover(Epoch(2), Epoch(2)))
    assert read == log.rows_read


@pytest.mark.parametrize("rows", [9, 10, 11])
async def test_a_tail_has_its_bound(log: Log, rows: int) -> None:
    """One row more than allowed is an error; with the index caught up the same tail serves again."""
    tail = _tail(rows_max=10)
    log.commit(*range(rows))
    if rows > 10:
        with pytest.raises(IndexLagging):
            await tail.cover(Epoch(0), Epoch(1))
    else:
        assert rows == len(await tail.cover(Epoch(0), Epoch(1)))
    log.commit(1, 2, 3)
    found = await tail.cover(Epoch(1), Epoch(2))
    assert {1, 2, 3} <= set(found.chunk_ids)


async def test_only_what_waits_counts_against_the_bound(log: Log) -> None:
    """Rows that were applied since the tail read them, and rows touched again, are not counted twice."""
    tail = _tail(rows_max=10)
    log.commit(*range(8))
    assert 8 == len(await tail.cover(Epoch(0), Epoch(1)))
    log.commit(*range(8))
    assert 8 == len(await tail.cover(Epoch(0), Epoch(2)))
    log.commit(*range(100, 110))
    assert 10 == len(await tail.cover(Epoch(2), Epoch(3)))
    log.commit(200)
    for _ in range(2):
        with pytest.raises(IndexLagging):
            await tail.cover(Epoch(2), Epoch(4))
    read = log.rows_read
    with pytest.raises(IndexLagging):
        await tail.cover(Epoch(2), Epoch(4))
    assert read == log.rows_read
    assert 1 == len(await tail.cover(Epoch(3), Epoch(4)))


async def test_a_reader_keeps_the_overlay_it_was_given(log: Log) -> None:
    """The tail starting anew for others takes nothing away from a read that is under way."""
    tail = _tail()
    log.commit(1)
    mine = await tail.cover(Epoch(0), Epoch(1))
    log.commit(2)
    await tail.cover(Epoch(2), Epoch(2))
    assert [1] == _ids(mine.best(question(), 5))


def _ids(found: Sequence[Match]) -> list[int]:
    return [match.chunk_id for match in found]
