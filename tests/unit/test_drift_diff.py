"""The comparison of both stores, over arbitrary contents of either: nothing is overlooked and nothing invented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver.collection import payload_of
from ragver.index.payload import stored
from ragver.index.port import Collection, Page, StoredPoint
from ragver.ledger.chunks import Change
from ragver.ledger.scanning import Moment, Rows
from ragver.reconciler import diff, sampling
from ragver.reconciler.diff import Describer
from ragver.types import ChunkId, Distance, DocumentId, DriftKind, Epoch, FieldType

FILTERABLE = {"year": FieldType.INTEGER, "public": FieldType.BOOL}
COLLECTION = Collection("c", 2, Distance.DOT, FILTERABLE)
VECTOR = np.array([1, 2], dtype=np.float32)
HORIZON, APPLIED, HEAD = Epoch(3), Epoch(7), Epoch(9)
MOMENT = Moment(HEAD, HORIZON, APPLIED)

# ── any two stores ──────────────────────────────────────────────────────────────────────────────────────────

DESCRIPTIONS = [('["*"]', "{}"), ('["user:ada"]', '{"year": 3, "public": true, "more": 1}')]


@st.composite
def changes(draw: st.DrawFn, chunk_id: int) -> Change:
    born = draw(st.integers(1, 6))
    died = draw(st.none() | st.integers(born + 1, 9))
    document = draw(st.integers(1, 3))
    acl, metadata = (["*"], {}) if document % 2 else (["user:ada"], {"year": 3, "public": True, "more": 1})
    touched = draw(st.integers(died or born, 9))
    return Change(
        ChunkId(chunk_id),
        DocumentId(document),
        Epoch(born),
        None if died is None else Epoch(died),
        Epoch(touched),
        tuple(acl),
        metadata,
        VECTOR,
    )


@st.composite
def stores(draw: st.DrawFn) -> tuple[dict[int, Change], dict[int, Mapping[str, Any]]]:
    """A ledger, and an index that holds the same but for some points that are lost, wrong or of nowhere."""
    ledger = {chunk_id: draw(changes(chunk_id)) for chunk_id in draw(st.sets(st.integers(1, 30), max_size=12))}
    index: dict[int, Mapping[str, Any]] = {
        chunk_id: stored(payload_of(COLLECTION, change)) for chunk_id, change in ledger.items()
    }
    for chunk_id in draw(st.sets(st.integers(1, 30), max_size=5)):
        payload = draw(
            st.sampled_from([None, {"acl": 3}, {**index.get(chunk_id, {}), "died_epoch": 5}, index.get(chunk_id)])
        )
        if payload is None:
            index.pop(chunk_id, None)
        else:
            index[chunk_id] = payload
    return ledger, dict(sorted(index.items()))


def rows_of(ledger: Mapping[int, Change]) -> Rows:
    ordered = [ledger[chunk_id] for chunk_id in sorted(ledger)]
    columns = [
        [one.chunk_id for one in ordered],
        [one.document_id for one in ordered],
        [one.born_epoch for one in ordered],
        [one.died_epoch or 0 for one in ordered],
        [one.touched_epoch for one in ordered],
    ]
    return Rows(*(np.array(column, dtype=np.int64) for column in columns))


@given(stores())
def test_the_suspects_are_the_points_that_are_judged_to_differ(
    both: tuple[dict[int, Change], dict[int, Mapping[str, Any]]],
) -> None:
    """Besides these, only what waits for its removal may be suspected: the second look lets it be."""
    ledger, index = both
    rows = rows_of(ledger)
    described = {life: DESCRIPTIONS[(life[0] + 1) % 2] for life in diff.lives(rows)}
    expected = Describer(FILTERABLE).expected(rows, described, APPLIED, HORIZON)

    suspected = diff.suspects(expected, Page(list(index), list(index.values()), None)).tolist()

    judged = {
        chunk_id: diff.judge(COLLECTION, ledger.get(chunk_id), _point(index, chunk_id), MOMENT)
        for chunk_id in {*ledger, *index}
    }
    differ = {chunk_id for chunk_id, drift in judged.items() if drift is not None}
    assert sorted(suspected) == suspected
    assert differ <= set(suspected)
    assert all(_waits(ledger[chunk_id]) for chunk_id in set(suspected) - differ)


@given(stores(), st.integers(0, 31), st.integers(0, 31))
def test_a_part_of_what_is_expected_is_what_lies_in_its_range(
    both: tuple[dict[int, Change], dict[int, Mapping[str, Any]]], after: int, last: int
) -> None:
    rows = rows_of(both[0])
    whole = Describer(FILTERABLE).expected(rows, {}, APPLIED, HORIZON)

    part = whole.between(ChunkId(after), ChunkId(last))

    assert [chunk_id for chunk_id in sorted(both[0]) if after < chunk_id <= last] == part.ids.tolist()
    assert len(part.payloads) == part.ids.size == part.optional.size == part.unsettled.size


def _point(index: Mapping[int, Mapping[str, Any]], chunk_id: int) -> StoredPoint | None:
    return StoredPoint(ChunkId(chunk_id), index[chunk_id], VECTOR) if chunk_id in index else None


def _waits(change: Change) -> bool:
    return change.died_epoch is not None and change.died_epoch <= HORIZON


# ── one point ───────────────────────────────────────────────────────────────────────────────────────────────

ALIVE = Change(ChunkId(1), DocumentId(1), Epoch(2), None, Epoch(4), ("*",), {"year": 3}, VECTOR)
DEAD = replace(ALIVE, died_epoch=Epoch(5), touched_epoch=Epoch(5))
WAITING = replace(ALIVE, died_epoch=HORIZON, touched_epoch=Epoch(4))
REMOVED = replace(DEAD, vector=None)


def point(change: Change, *without: str, **changed: Any) -> StoredPoint:
    payload = {**stored(payload_of(COLLECTION, change)), **changed}
    return StoredPoint(change.chunk_id, {name: payload[name] for name in payload if name not in without}, VECTOR)


@pytest.mark.parametrize(
    ("change", "there", "kind"),
    [
        (ALIVE, point(ALIVE), None),
        (DEAD, point(DEAD), None),
        (ALIVE, None, DriftKind.MISSING),
        (DEAD, None, DriftKind.MISSING),
        (WAITING, None, None),
        (REMOVED, None, None),
        (None, None, None),
        (None, point(ALIVE), DriftKind.ORPHAN),
        (replace(ALIVE, vector=None), point(ALIVE), DriftKind.ORPHAN),
        (REMOVED, point(DEAD), DriftKind.ORPHAN),
        (REMOVED, point(ALIVE), DriftKind.ZOMBIE),
        (DEAD, point(ALIVE), DriftKind.ZOMBIE),
        (WAITING, point(ALIVE), DriftKind.ZOMBIE),
        (WAITING, point(WAITING, acl=["user:ada"]), None),
        (ALIVE, point(DEAD), DriftKind.BURIED),
        (DEAD, point(DEAD, died_epoch=4), DriftKind.BURIED),
        (DEAD, point(DEAD, died_epoch="5"), DriftKind.BURIED),
        (ALIVE, point(ALIVE, touched_epoch=3), DriftKind.STALE_PAYLOAD),
        (ALIVE, point(ALIVE, acl=["user:ada"]), DriftKind.STALE_PAYLOAD),
        (ALIVE, point(ALIVE, meta={}), DriftKind.STALE_PAYLOAD),
        (ALIVE, point(ALIVE, "document_id"), DriftKind.STALE_PAYLOAD),
        (ALIVE, point(ALIVE, stray=1), DriftKind.STALE_PAYLOAD),
        (ALIVE, replace(point(ALIVE), vector=VECTOR + 1), DriftKind.VECTOR_MISMATCH),
        (ALIVE, replace(point(ALIVE), vector=None), DriftKind.VECTOR_MISMATCH),
        (replace(ALIVE, touched_epoch=Epoch(8)), None, None),
        (replace(DEAD, died_epoch=Epoch(8), touched_epoch=Epoch(8)), point(ALIVE), None),
    ],
)
def test_a_point_is_judged(change: Change | None, there: StoredPoint | None, kind: DriftKind | None) -> None:
    drift = diff.judge(COLLECTION, change, there, MOMENT, vectors=True)

    assert kind == (None if drift is None else drift.kind)


def test_the_evidence_names_what_differs_and_quotes_nothing() -> None:
    drift = diff.judge(COLLECTION, ALIVE, point(ALIVE, acl=["user:ada"], meta={"year": 4}, secret="who"), MOMENT)

    assert drift is not None
    assert ["acl", "meta", "secret"] == drift.evidence["differ"]
    assert not any(word in str(drift.evidence) for word in ("ada", "who", "year"))


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sample_is_a_share_of_what_must_be_there_and_the_same_each_time() -> None:
    ledger = {
        number: replace((ALIVE, WAITING, replace(ALIVE, touched_epoch=Epoch(8)))[number % 3], chunk_id=ChunkId(number))
        for number in range(30_000)
    }
    expected = Describer(FILTERABLE).expected(rows_of(ledger), {}, APPLIED, HORIZON)

    first, again, other = (sampling.sampled(expected, seed, 0.1)[0].tolist() for seed in (5, 5, 6))

    assert first == again != other
    assert all(chunk_id % 3 == 0 for chunk_id in first)
    assert 850 < len(first) < 1_150
    whole, less = sampling.sampled(expected, 5, 1.0, 0.01)
    assert 10_000 == whole.size
    assert set(less.tolist()) < set(first)


def test_vectors_are_compared_bit_by_bit() -> None:
    page = Page([1, 2, 3, 4], [{}] * 4, np.array([[1, 2], [1, 2.0000002], [np.nan, np.nan], [1, 2]], dtype=np.float32))
    right = VECTOR.tobytes()

    differ = sampling.other_vectors(page, {ChunkId(1): right, ChunkId(2): right, ChunkId(3): right})

    assert [2, 3] == differ.tolist()


def test_neighbours_share_what_is_expected_of_them() -> None:
    """A dictionary for each chunk would be most of the work."""
    ledger = {number: replace(ALIVE, chunk_id=ChunkId(number)) for number in range(100)}
    rows = rows_of(ledger)

    expected = Describer(FILTERABLE).expected(rows, {(1, 0): DESCRIPTIONS[0]}, APPLIED, HORIZON)

    assert 1 == len({id(payload) for payload in expected.payloads})
    assert [(1, 0)] == diff.lives(rows)
