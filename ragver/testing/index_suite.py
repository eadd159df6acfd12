"""What every index adapter must do, as tests. It needs pytest, anyio and hypothesis.

Subclass it in a test module and say how the engine is opened; pytest runs the rest::

    class TestMyIndex(IndexConformance):
        @pytest.fixture
        def open_index(self, tmp_path: Path) -> Callable[[], Index]:
            return lambda: MyIndex(tmp_path)

Two opened one after the other must find the same points; the suite never has two open at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import anyio
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ragver.errors import IndexUnavailable, VectorInvalid
from ragver.filters import matches, parse, projection
from ragver.index.port import Collection, Index, Match, Payload, Point, Search
from ragver.index.scoring import normalised, scores
from ragver.testing.filter_strategies import FIELDS, filters, metadata
from ragver.types import ChunkId, Distance, DocumentId, Epoch

DIMENSIONS = 8

OpenIndex = Callable[[], Index]

_shared_between_examples = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
)


# ── making points ───────────────────────────────────────────────────────────────────────────────────────────


def a_collection(**changes: Any) -> Collection:
    """A collection that no other test knows."""
    name = f"conformance_{uuid4().hex}"
    return replace(Collection(name, DIMENSIONS, Distance.COSINE, FIELDS), **changes)


def a_vector(seed: int, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)


def a_payload(born: int = 1, **changes: Any) -> Payload:
    alive = Payload(DocumentId(1), Epoch(born), None, Epoch(born), ["*"], {})
    return replace(alive, **changes)


def a_point(chunk_id: int, born: int = 1, **changes: Any) -> Point:
    vector = normalised(Distance.COSINE, a_vector(chunk_id))
    return Point(ChunkId(chunk_id), vector, a_payload(born, **changes))


def a_search(epoch: int = 10**6, principals: Sequence[str] = (), **changes: Any) -> Search:
    """Finds all that is visible, unless told otherwise."""
    return replace(Search(a_vector(0), 1_000, Epoch(epoch), principals), **changes)


def ids(*numbers: int) -> list[ChunkId]:
    return [ChunkId(number) for number in numbers]


def deaths(epochs: Mapping[int, int]) -> dict[ChunkId, Epoch]:
    return {ChunkId(chunk_id): Epoch(epoch) for chunk_id, epoch in epochs.items()}


def found(hits: Iterable[Match]) -> set[int]:
    return {hit.chunk_id for hit in hits}


async def payloads(index: Index, collection: Collection) -> dict[int, Mapping[str, Any]]:
    return {point.chunk_id: point.payload for point in await index.scroll(collection, None, 10_000)}


# ── the suite ───────────────────────────────────────────────────────────────────────────────────────────────


class IndexConformance:
    """The promises of ``ragver.index.port``, one test each."""

    @pytest.fixture
    def open_index(self) -> OpenIndex:
        raise NotImplementedError("override this fixture: a function that opens the engine on the same storage")

    @pytest.fixture
    async def index(self, open_index: OpenIndex) -> AsyncIterator[Index]:
        index = open_index()
        yield index
        await index.close()

    @pytest.fixture
    async def collection(self, index: Index) -> Collection:
        """An empty collection with all field types declared, compared by cosine."""
        collection = a_collection()
        await index.ensure(collection)
        return collection

    # collections

    async def test_an_engine_that_can_serve_answers_the_ping(self, index: Index) -> None:
        await index.ping()

    async def test_only_the_call_that_creates_a_collection_says_so(self, index: Index) -> None:
        collection = a_collection()

        answers = [await index.ensure(collection), await index.ensure(collection)]

        assert answers == [True, False]
        assert await index.count(collection) == 0

    async def test_a_collection_exists_from_its_creation_until_it_is_dropped(self, index: Index) -> None:
        collection = a_collection()
        answers = [await index.exists(collection)]

        await index.ensure(collection)
        answers.append(await index.exists(collection))
        await index.drop(collection)
        answers.append(await index.exists(collection))

        assert answers == [False, True, False]

    async def test_a_dropped_collection_is_created_anew_and_empty(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [a_point(1)])

        await index.drop(collection)
        await index.drop(collection)

        assert await index.ensure(collection)
        assert await index.count(collection) == 0

    async def test_a_collection_that_is_not_there_is_an_error_and_not_an_empty_answer(self, index: Index) -> None:
        nowhere = a_collection()
        calls: list[Callable[[], Any]] = [
            lambda: index.search(nowhere, a_search()),
            lambda: index.scroll(nowhere, None, 10),
            lambda: index.count(nowhere),
            lambda: index.upsert(nowhere, [a_point(1)]),
            lambda: index.mark_dead(nowhere, deaths({1: 2})),
            lambda: index.refresh_payload(nowhere, {ChunkId(1): a_payload()}),
            lambda: index.delete(nowhere, ids(1)),
        ]
        for call in calls:
            with pytest.raises(IndexUnavailable):
                await call()

    async def test_collections_do_not_see_each_other(self, index: Index, collection: Collection) -> None:
        other = a_collection()
        await index.ensure(other)
        await index.upsert(collection, [a_point(1)])

        await index.upsert(other, [a_point(2)])
        await index.delete(other, ids(1))

        assert found(await index.search(collection, a_search())) == {1}
        assert found(await index.search(other, a_search())) == {2}

    # writing

    async def test_nothing_to_write_is_no_error(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [])
        await index.mark_dead(collection, {})
        await index.refresh_payload(collection, {})
        await index.delete(collection, [])

        assert await index.count(collection) == 0

    async def test_a_point_that_is_there_stays_as_it_is(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [a_point(1, born=3, acl=["user:ada"])])

        await index.upsert(collection, [replace(a_point(2, born=9), chunk_id=ChunkId(1)), a_point(3)])

        points = await index.scroll(collection, None, 10, with_vectors=True)
        assert [point.chunk_id for point in points] == [1, 3]
        assert points[0].payload["born_epoch"] == 3
        assert points[0].payload["acl"] == ["user:ada"]
        assert points[0].vector is not None
        np.testing.assert_array_equal(a_point(1).vector, points[0].vector)

    async def test_any_number_of_points_can_be_written_at_once(self, index: Index, collection: Collection) -> None:
        numbers = range(1, 1_501)

        await index.upsert(collection, [a_point(number) for number in numbers])
        await index.mark_dead(collection, deaths(dict.fromkeys(range(1, 1_001), 2)))
        await index.delete(collection, ids(*range(1, 501)))

        assert await index.count(collection) == 1_000
        assert found(await index.search(collection, a_search())) == set(range(1_001, 1_501))

    async def test_a_death_is_set_once_and_only_where_the_point_is(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [a_point(1), a_point(2), a_point(3)])

        await index.mark_dead(collection, deaths({1: 4, 99: 4, 2: 5}))
        await index.mark_dead(collection, deaths({1: 7, 3: 6}))

        found_deaths = {
            chunk_id: payload["died_epoch"] for chunk_id, payload in (await payloads(index, collection)).items()
        }
        assert found_deaths == {1: 4, 2: 5, 3: 6}

    async def test_a_late_insert_does_not_bring_the_dead_back(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [a_point(1)])
        await index.mark_dead(collection, deaths({1: 4}))

        await index.upsert(collection, [a_point(1)])

        assert found(await index.search(collection, a_search(epoch=4))) == set()

    async def test_a_point_may_be_inserted_dead(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [a_point(1, born=2, died_epoch=Epoch(5))])
        await index.mark_dead(collection, deaths({1: 3}))

        assert found(await index.search(collection, a_search(epoch=4))) == {1}
        assert found(await index.search(collection, a_search(epoch=5))) == set()

    async def test_a_refresh_replaces_access_and_metadata_and_nothing_else(
        self, index: Index, collection: Collection
    ) -> None:
        """A field that is no longer there vanishes, from filters too; births and deaths stay."""
        await index.upsert(collection, [a_point(1, born=2, metadata={"team": "hr", "year": 2024})])
        await index.mark_dead(collection, deaths({1: 9}))

        change = a_payload(5, document_id=DocumentId(77), acl=["group:it"], metadata={"team": "it"})
        await index.refresh_payload(collection, {ChunkId(1): change, ChunkId(99): change})

        expected = {
            "document_id": 1,
            "born_epoch": 2,
            "died_epoch": 9,
            "touched_epoch": 5,
            "restricted": 1,
            "acl": ["group:it"],
            "meta": {"team": "it"},
        }
        assert expected == (await payloads(index, collection))[1]
        old = parse({"any": [{"field": "year", "exists": True}, {"field": "team", "eq": "hr"}]}, FIELDS)
        assert found(await index.search(collection, a_search(8, ["group:it"]))) == {1}
        assert found(await index.search(collection, a_search(8, ["group:it"], filter=old))) == set()
        assert found(await index.search(collection, a_search(8))) == set()
        await index.refresh_payload(collection, {ChunkId(1): a_payload(6)})
        assert found(await index.search(collection, a_search(8))) == {1}

    async def test_a_refresh_applies_only_where_it_is_newer(self, index: Index, collection: Collection) -> None:
        await index.upsert(collection, [a_point(1), a_point(2, born=6, acl=["user:new"])])

        for touched, label in ((5, "user:five"), (5, "user:again"), (3, "user:late")):
            change = a_payload(touched, acl=[label])
            await index.refresh_payload(collection, {ChunkId(1): change, ChunkId(2): change})

        stored = await payloads(index, collection)
        assert (stored[1]["acl"], stored[1]["touched_epoch"]) == (["user:five"], 5)
        assert (stored[2]["acl"], stored[2]["touched_epoch"]) == (["user:new"], 6)

    @_shared_between_examples
    @given(late=st.lists(st.integers(0, 5), max_size=8))
    async def test_calls_repeated_late_and_out_of_order_change_nothing(
        self, index: Index, collection: Collection, late: list[int]
    ) -> None:
        first, second = ChunkId(1), ChunkId(2)
        calls: list[Callable[[], Any]] = [
            lambda: index.upsert(collection, [a_point(1, born=1, metadata={"team": "hr"}), a_point(2, born=1)]),
            lambda: index.refresh_payload(collection, {first: a_payload(2, acl=["group:hr"])}),
            lambda: index.mark_dead(collection, {second: Epoch(3)}),
            lambda: index.upsert(collection, [a_point(3, born=4)]),
            lambda: index.refresh_payload(collection, {first: a_payload(5), second: a_payload(5)}),
            lambda: index.mark_dead(collection, {first: Epoch(6)}),
        ]
        await index.delete(collection, ids(1, 2, 3))
        for call in calls:
            await call()
        before = await payloads(index, collection)

        for repeated in late:
            await calls[repeated]()

        assert before == await payloads(index, collection)

    async def test_deleted_points_are_gone_and_missing_ones_are_passed_over(
        self, index: Index, collection: Collection
    ) -> None:
        await index.upsert(collection, [a_point(1), a_point(2)])

        await index.delete(collection, ids(1, 99))
        await index.delete(collection, ids(1))

        assert list(await payloads(index, collection)) == [2]
        assert found(await index.search(collection, a_search())) == {2}

    # searching

    async def test_an_epoch_shows_what_is_born_and_not_yet_dead(self, index: Index, collection: Collection) -> None:
        lives = {1: (1, None), 2: (1, 3), 3: (2, 4), 4: (3, None), 5: (4, 5)}
        await index.upsert(collection, [a_point(number, born=born) for number, (born, _) in lives.items()])
        await index.mark_dead(collection, deaths({number: died for number, (_, died) in lives.items() if died}))

        for epoch in range(7):
            alive = {n for n, (born, died) in lives.items() if born <= epoch and not (died and died <= epoch)}
            assert alive == found(await index.search(collection, a_search(epoch)))
            if epoch >= 4:
                sure = a_search(epoch, may_hold_newer=False)
                assert alive == found(await index.search(collection, sure))

    async def test_a_reader_sees_what_one_of_its_labels_or_the_wildcard_opens(
        self, index: Index, collection: Collection
    ) -> None:
        labels = {1: ["*"], 2: ["group:hr"], 3: ["group:it", "user:ada"], 4: [], 5: ["group:hr", "*"]}
        await index.upsert(collection, [a_point(number, acl=acl) for number, acl in labels.items()])

        readers: list[tuple[list[str], set[int]]] = [
            ([], {1, 5}),
            (["group:hr"], {1, 2, 5}),
            (["user:ada", "group:hr"], {1, 2, 3, 5}),
            (["*"], {1, 5}),
            (["*", "group:it"], {1, 3, 5}),
            (["group"], {1, 5}),
            (["GROUP:HR"], {1, 5}),
        ]
        for principals, expected in readers:
            assert expected == found(await index.search(collection, a_search(principals=principals)))

    @_shared_between_examples
    @example(  # one element has to lie between the bounds; two that each keep one bound are not enough
        documents=[{"year": [1, 7]}, {"year": [1, 2, 7]}, {"weight": [-1.0, 1.5]}, {"weight": [0.3, 1.5]}],
        sources=[
            {"field": "year", "gt": 1, "lt": 7},
            {"not": {"field": "year", "gt": 1, "lt": 7}},
            {"field": "weight", "gte": 0.0, "lt": 1.5},
        ],
    )
    @given(documents=st.lists(metadata(), min_size=1, max_size=12), sources=st.lists(filters(), min_size=1, max_size=5))
    async def test_a_filter_means_the_same_here_and_in_python(
        self,
        index: Index,
        collection: Collection,
        documents: list[dict[str, object]],
        sources: list[dict[str, object]],
    ) -> None:
        points = [
            a_point(number, metadata=projection(document, FIELDS)) for number, document in enumerate(documents, 1)
        ]
        await index.delete(collection, [point.chunk_id for point in await index.scroll(collection, None, 100)])
        await index.upsert(collection, points)

        for source in sources:
            wanted = parse(source, FIELDS)
            expected = {number for number, document in enumerate(documents, 1) if matches(wanted, document)}
            assert expected == found(await index.search(collection, a_search(filter=wanted)))

    async def test_a_filter_access_and_the_epoch_must_all_hold(self, index: Index, collection: Collection) -> None:
        hr = {"team": "hr"}
        await index.upsert(
            collection,
            [
                a_point(1, metadata=hr),
                a_point(2, metadata={"team": "it"}),
                a_point(3, metadata=hr, acl=["user:ada"]),
                a_point(4, metadata=hr, died_epoch=Epoch(2)),
                a_point(5, metadata=hr, born=9),
            ],
        )
        wanted = parse({"field": "team", "eq": "hr"}, FIELDS)

        assert found(await index.search(collection, a_search(epoch=5, filter=wanted))) == {1}

    @pytest.mark.parametrize("distance", list(Distance))
    async def test_hits_come_best_first_with_the_scores_that_numpy_gives(
        self, index: Index, distance: Distance
    ) -> None:
        """The tail is ranked in numpy beside the index, so the two must measure alike."""
        dimensions = 96
        collection = a_collection(distance=distance, dimensions=dimensions)
        await index.ensure(collection)
        matrix = normalised(distance, np.stack([a_vector(seed, dimensions) for seed in range(1, 201)]))
        await index.upsert(
            collection,
            [Point(ChunkId(row + 1), vector, a_payload()) for row, vector in enumerate(matrix)],
        )

        for scale in (1.0, 25.0, 1e-6):
            vector = a_vector(0, dimensions) * np.float32(scale)
            hits = await index.search(collection, a_search(vector=vector, limit=50))

            computed = scores(distance, matrix, vector)
            assert len(hits) == 50
            given_scores = [hit.score for hit in hits]
            assert sorted(given_scores, reverse=distance.larger_is_closer) == given_scores
            rows = [hit.chunk_id - 1 for hit in hits]
            np.testing.assert_allclose(computed[rows], given_scores, rtol=1e-5, atol=1e-5 * scale)
            best = np.sort(computed)[::-1][:50] if distance.larger_is_closer else np.sort(computed)[:50]
            np.testing.assert_allclose(best, given_scores, rtol=1e-5, atol=1e-5 * scale)

    async def test_a_zero_vector_is_stored_and_searched_like_any_other(
        self, index: Index, collection: Collection
    ) -> None:
        zero = np.zeros(DIMENSIONS, dtype=np.float32)
        await index.upsert(collection, [replace(a_point(1), vector=zero), a_point(2)])

        assert [hit.score for hit in await index.search(collection, a_search(vector=zero))] == [0.0, 0.0]
        assert found(await index.search(collection, a_search())) == {1, 2}

    async def test_fewer_hits_than_asked_for_means_there_are_no_more(
        self, index: Index, collection: Collection
    ) -> None:
        assert await index.search(collection, a_search()) == []
        await index.upsert(collection, [a_point(number) for number in range(1, 6)])
        await index.mark_dead(collection, deaths({1: 2, 2: 2}))

        assert len(await index.search(collection, a_search(limit=2))) == 2
        assert found(await index.search(collection, a_search(limit=4))) == {3, 4, 5}

    @pytest.mark.parametrize(
        "vector", [[1.0] * (DIMENSIONS - 1), [1.0] * (DIMENSIONS + 1), [], [float("nan")] * DIMENSIONS]
    )
    async def test_a_vector_that_does_not_fit_is_refused(
        self, index: Index, collection: Collection, vector: list[float]
    ) -> None:
        unfit = np.array(vector, dtype=np.float32)

        with pytest.raises(VectorInvalid):
            await index.search(collection, a_search(vector=unfit))
        with pytest.raises(VectorInvalid):
            await index.upsert(collection, [replace(a_point(1), vector=unfit)])

    # comparing

    async def test_scrolling_goes_up_the_ids_and_starts_after_the_given_one(
        self, index: Index, collection: Collection
    ) -> None:
        numbers = [2**63 - 1, 5, 2**53 + 1, 2**53, 1_001, 40]
        for number in numbers:
            await index.upsert(collection, [a_point(number)])
        await index.mark_dead(collection, deaths({40: 2}))

        seen: list[int] = []
        after: ChunkId | None = None
        while len(seen) < len(numbers) and (page := await index.scroll(collection, after, 4)):
            seen += [point.chunk_id for point in page]
            after = page[-1].chunk_id

        assert sorted(numbers) == seen
        assert await index.scroll(collection, after, 4) == []
        assert len(numbers) == await index.count(collection)

    @pytest.mark.parametrize("dimensions", [3, 384, 1_536])
    async def test_vectors_come_back_bit_by_bit(self, index: Index, dimensions: int) -> None:
        """Or else their checksums would differ from the ledger's."""
        collection = a_collection(dimensions=dimensions)
        await index.ensure(collection)
        vectors = normalised(Distance.COSINE, np.stack([a_vector(seed, dimensions) for seed in range(50)]))
        await index.upsert(
            collection, [Point(ChunkId(row + 1), vector, a_payload()) for row, vector in enumerate(vectors)]
        )

        points = await index.scroll(collection, None, 50, with_vectors=True)

        np.testing.assert_array_equal(vectors, np.stack([point.vector for point in points if point.vector is not None]))
        assert [point.vector for point in await index.scroll(collection, None, 1)] == [None]

    # working side by side, and again later

    async def test_many_tasks_may_read_and_write_at_once(self, index: Index, collection: Collection) -> None:
        async def write(number: int) -> None:
            await index.upsert(collection, [a_point(number), a_point(number + 100)])
            await index.mark_dead(collection, deaths({number: 2}))
            hits = found(await index.search(collection, a_search()))
            assert number + 100 in hits
            assert number not in hits

        async with anyio.create_task_group() as tasks:
            for number in range(1, 41):
                tasks.start_soon(write, number)

        assert found(await index.search(collection, a_search())) == set(range(101, 141))

    async def test_what_was_written_is_there_after_a_restart(self, open_index: OpenIndex) -> None:
        collection = a_collection()
        index = open_index()
        await index.ensure(collection)
        await index.upsert(collection, [a_point(1, metadata={"team": "hr"}), a_point(2), a_point(3)])
        await index.mark_dead(collection, deaths({2: 4}))
        await index.delete(collection, ids(3))
        before = await payloads(index, collection)
        await index.close()

        again = open_index()

        assert not await again.ensure(collection)
        assert before == await payloads(again, collection)
        wanted = parse({"field": "team", "eq": "hr"}, FIELDS)
        assert found(await again.search(collection, a_search(filter=wanted))) == {1}
        await again.close()
