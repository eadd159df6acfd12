"""The same calls, seeded and random, on every engine at hand: what they answer must be the same.

Edge is the measure; qdrant-client's local mode is another engine behind the server's adapter. A server takes part
where RAGVER_TEST_QDRANT_URL names one. Which took part is printed, and so is the seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragver.filters import parse, projection
from ragver.index.edge import EdgeIndex
from ragver.index.port import Collection, Index, Match, Payload, Point, StoredPoint
from ragver.index.qdrant import QdrantIndex
from ragver.index.qdrant_options import Connection, Options
from ragver.index.scoring import normalised
from ragver.testing.filter_strategies import FIELDS
from ragver.testing.index_suite import a_collection, a_payload, a_search, a_vector
from ragver.types import ChunkId, Distance, Epoch
from tests.support.qdrant_engines import LOCAL_WARNING, SERVER_URL, local_index, server_index
from tests.support.qdrant_wire import wire_server

pytestmark = pytest.mark.filterwarnings(LOCAL_WARNING)

CALLS = 150
CHUNKS = 60
EPOCHS = 20
LABELS = ["*", "group:hr", "group:it", "user:ada"]
VALUES: Mapping[str, list[Any]] = {
    "team": ["hr", "it", "köln", ""],
    "year": [-1, 0, 7, 2**53],
    "weight": [-1.5, 0.0, 0.3, 1e300],
    "public": [True, False],
    "last-seen": ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00.000001+01:00", "0001-01-01T00:00:00Z"],
}

Call = Callable[[Index, Collection], Awaitable[Any]]


class Script:
    """Random calls, the same for the same seed."""

    def __init__(self, seed: int, distance: Distance) -> None:
        self._chance = random.Random(seed)
        self._distance = distance

    def calls(self, count: int) -> list[Call]:
        kinds = [self._upsert, self._mark_dead, self._refresh, self._delete, self._search, self._search, self._scroll]
        return [self._chance.choice(kinds)() for _ in range(count)]

    def _ids(self) -> list[ChunkId]:
        return [ChunkId(number) for number in self._chance.sample(range(1, CHUNKS + 1), self._chance.randint(1, 12))]

    def _epoch(self) -> Epoch:
        return Epoch(self._chance.randint(1, EPOCHS))

    def _labels(self) -> list[str]:
        return self._chance.sample(LABELS, self._chance.randint(0, 3))

    def _payload(self) -> Payload:
        fields = self._chance.sample(sorted(VALUES), self._chance.randint(0, len(VALUES)))
        metadata = {field: self._value(field) for field in fields}
        epoch = self._epoch()
        return a_payload(epoch, acl=self._labels(), metadata=projection(metadata, FIELDS))

    def _value(self, field: str) -> Any:
        values = VALUES[field]
        many = self._chance.random() < 0.3
        return self._chance.sample(values, self._chance.randint(0, 2)) if many else self._chance.choice(values)

    def _upsert(self) -> Call:
        points = [self._point(chunk_id) for chunk_id in self._ids()]
        return lambda index, collection: index.upsert(collection, points)

    def _point(self, chunk_id: ChunkId) -> Point:
        vector = normalised(self._distance, a_vector(self._chance.randrange(2**32)))
        return Point(chunk_id, vector, self._payload())

    def _mark_dead(self) -> Call:
        deaths = {chunk_id: self._epoch() for chunk_id in self._ids()}
        return lambda index, collection: index.mark_dead(collection, deaths)

    def _refresh(self) -> Call:
        payloads = {chunk_id: self._payload() for chunk_id in self._ids()}
        return lambda index, collection: index.refresh_payload(collection, payloads)

    def _delete(self) -> Call:
        chunk_ids = self._ids()[:3]
        return lambda index, collection: index.delete(collection, chunk_ids)

    def _search(self) -> Call:
        wanted = None if self._chance.random() < 0.3 else parse(self._filter(2), FIELDS)
        search = a_search(
            self._epoch(),
            self._labels(),
            vector=a_vector(self._chance.randrange(2**32)),
            limit=self._chance.choice([1, 5, 100]),
            filter=wanted,
            may_hold_newer=self._chance.random() < 0.7,
        )
        return lambda index, collection: index.search(collection, search)

    def _filter(self, depth: int) -> dict[str, Any]:
        form = self._chance.choice(["all", "any", "not", *["field"] * 3]) if depth else "field"
        if form == "not":
            return {"not": self._filter(depth - 1)}
        if form != "field":
            return {form: [self._filter(depth - 1) for _ in range(self._chance.randint(1, 3))]}
        return self._condition()

    def _condition(self) -> dict[str, Any]:
        field = self._chance.choice(sorted(VALUES))
        first, second = self._chance.choices(VALUES[field], k=2)
        forms: list[dict[str, Any]] = [{"eq": first}, {"in": [first, second]}, {"exists": self._chance.random() < 0.5}]
        if field not in ("team", "public"):
            forms += [{"gte": first}, {"gt": first, "lte": second}, {"lt": second}]
        return {"field": field, **self._chance.choice(forms)}

    def _scroll(self) -> Call:
        after = self._chance.choice([None, ChunkId(self._chance.randint(0, CHUNKS))])
        limit, with_vectors = self._chance.choice([1, 7, 100]), self._chance.random() < 0.5

        async def scroll(index: Index, collection: Collection) -> Any:
            return await index.count(collection), await index.scroll(
                collection, after, limit, with_vectors=with_vectors
            )

        return scroll


@pytest.fixture
async def engines(tmp_path: Path) -> AsyncIterator[dict[str, Index]]:
    """Every engine at hand by name, Edge first."""
    async with AsyncExitStack() as stack:
        wire = stack.enter_context(wire_server(tmp_path / "wire"))
        found: dict[str, Index] = {
            "edge": EdgeIndex(tmp_path / "edge"),
            "local": local_index(tmp_path / "local"),
            "wire": QdrantIndex.connect(Connection(wire.url), Options()),
        }
        if SERVER_URL is not None:
            for name, grpc in (("server, REST", False), ("server, gRPC", True)):
                found[name] = server_index(SERVER_URL, grpc=grpc)
        for index in found.values():
            stack.push_async_callback(index.close)
        yield found


async def test_several_engines_are_compared(engines: dict[str, Index], capsys: pytest.CaptureFixture[str]) -> None:
    """Said aloud, since a server takes part only where one is named."""
    with capsys.disabled():
        print(f"[engines compared: {', '.join(engines)}]", end=" ")

    assert list(engines)[:3] == ["edge", "local", "wire"]


@pytest.mark.parametrize("distance", list(Distance))
async def test_every_engine_answers_the_same(engines: dict[str, Index], distance: Distance) -> None:
    seed = int(os.environ.get("RAGVER_TEST_SEED", "20260"))
    print(f"RAGVER_TEST_SEED={seed}")
    calls = Script(seed, distance).calls(CALLS)
    answers = {name: await played(index, calls, distance) for name, index in engines.items()}

    measure = answers.pop("edge")
    assert any(hits for hits in measure if isinstance(hits, list)), "no search found anything: nothing was compared"
    for name, others in answers.items():
        for number, (expected, actual) in enumerate(zip(measure, others, strict=True)):
            require_same(expected, actual, f"call {number} on {name}")


async def played(index: Index, calls: list[Call], distance: Distance) -> list[Any]:
    """What the calls answer on an empty collection."""
    collection = a_collection(distance=distance)
    await index.ensure(collection)
    try:
        return [await call(index, collection) for call in calls]
    finally:
        await index.drop(collection)


def require_same(expected: Any, actual: Any, where: str) -> None:
    match expected, actual:
        case list(), list():
            require_same_hits(expected, actual, where)
        case (int() as count, list() as points), (int() as other_count, list() as other_points):
            assert count == other_count, where
            require_same_points(points, other_points, where)
        case _:
            assert expected == actual, where


def require_same_hits(expected: list[Match], actual: list[Match], where: str) -> None:
    assert [hit.chunk_id for hit in expected] == [hit.chunk_id for hit in actual], where
    np.testing.assert_allclose(
        [hit.score for hit in expected], [hit.score for hit in actual], rtol=1e-5, atol=1e-6, err_msg=where
    )


def require_same_points(expected: list[StoredPoint], actual: list[StoredPoint], where: str) -> None:
    assert [replace(point, vector=None) for point in expected] == [replace(point, vector=None) for point in actual], (
        where
    )
    for one, other in zip(expected, actual, strict=True):
        assert (one.vector is None) == (other.vector is None), where
        if one.vector is not None and other.vector is not None:
            # Local mode normalises what is normalised, and so rounds once more.
            np.testing.assert_allclose(one.vector, other.vector, rtol=0, atol=1e-6, err_msg=where)
