"""What an index adapter that the reconciler can work with must do besides, as tests.

Subclass it in the place of ``IndexConformance``, which it includes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ragver.errors import IndexUnavailable
from ragver.index.port import Collection, Comparable, Index, Stamp, Stamped
from ragver.testing.index_suite import (
    IndexConformance,
    OpenIndex,
    a_collection,
    a_point,
    a_search,
    deaths,
    found,
    ids,
)
from ragver.types import ChunkId, Epoch


def a_stamp(epoch: int, ledger: str = "ours", term: int = 1) -> Stamp:
    return Stamp(ledger, Epoch(epoch), f"hash of {epoch}", term)


class ComparisonConformance(IndexConformance):
    """The promises of ``Stamped`` and ``Comparable``, one test each."""

    @pytest.fixture
    def stamps(self, index: Index) -> Stamped:
        assert isinstance(index, Stamped)
        return index

    @pytest.fixture
    def comparable(self, index: Index) -> Comparable:
        assert isinstance(index, Comparable)
        return index

    async def test_a_stamp_is_kept_until_one_of_a_later_epoch_comes(
        self, stamps: Stamped, collection: Collection
    ) -> None:
        """A leader that was paused sets its old one without effect."""
        assert await stamps.stamped(collection) is None

        seen = []
        for stamp in (a_stamp(0), a_stamp(4), a_stamp(2, term=0), a_stamp(4, ledger="theirs"), a_stamp(9, term=2)):
            await stamps.stamp(collection, stamp)
            seen.append(await stamps.stamped(collection))

        assert [a_stamp(0), a_stamp(4), a_stamp(4), a_stamp(4), a_stamp(9, term=2)] == seen

    async def test_a_stamp_can_be_replaced_by_an_earlier_one(self, stamps: Stamped, collection: Collection) -> None:
        await stamps.stamp(collection, a_stamp(9))

        await stamps.stamp(collection, a_stamp(3, ledger="theirs"), replace=True)

        assert a_stamp(3, ledger="theirs") == await stamps.stamped(collection)
        await stamps.stamp(collection, a_stamp(4))
        assert a_stamp(4) == await stamps.stamped(collection)

    async def test_a_stamp_is_no_point(self, index: Index, stamps: Stamped, collection: Collection) -> None:
        """Neither for searches, at any epoch and for any reader, nor for scrolls and counts."""
        assert isinstance(index, Comparable)
        await stamps.stamp(collection, a_stamp(7))
        await index.upsert(collection, [a_point(1), a_point(2)])
        await index.mark_dead(collection, deaths({2: 3}))

        for epoch, expected in ((0, set()), (1, {1, 2}), (10**9, {1})):
            assert expected == found(await index.search(collection, a_search(epoch, ["*", "user:ada"])))
        assert [1, 2] == [point.chunk_id for point in await index.scroll(collection, None, 10)]
        assert [1, 2] == list((await index.page(collection, None, 10)).ids)
        assert 2 == await index.count(collection)

    async def test_a_stamp_survives_a_restart_and_ends_with_its_collection(self, open_index: OpenIndex) -> None:
        collection, index = a_collection(), open_index()
        assert isinstance(index, Stamped)
        await index.ensure(collection)
        await index.stamp(collection, a_stamp(7))
        await index.close()

        again = open_index()

        assert isinstance(again, Stamped)
        assert a_stamp(7) == await again.stamped(collection)
        await again.drop(collection)
        await again.ensure(collection)
        assert await again.stamped(collection) is None
        await again.close()

    async def test_points_are_looked_up_by_their_ids(
        self, index: Index, comparable: Comparable, collection: Collection
    ) -> None:
        await index.upsert(collection, [a_point(number, acl=["user:ada"]) for number in (1, 2, 3)])
        await index.mark_dead(collection, deaths({2: 5}))

        looked_up = await comparable.lookup(collection, ids(3, 99, 2), with_vectors=True)

        points = {point.chunk_id: point for point in looked_up}
        assert {2, 3} == set(points)
        assert 5 == points[ChunkId(2)].payload["died_epoch"]
        assert ["user:ada"] == points[ChunkId(3)].payload["acl"]
        np.testing.assert_array_equal(a_point(3).vector, points[ChunkId(3)].vector)
        assert [] == await comparable.lookup(collection, [])

    async def test_a_page_is_a_scroll_in_columns(
        self, index: Index, comparable: Comparable, collection: Collection
    ) -> None:
        await index.upsert(collection, [a_point(number, acl=["user:ada"]) for number in range(1, 1_301)])
        scrolled = await index.scroll(collection, ChunkId(100), 1_150, with_vectors=True)

        page = await comparable.page(collection, ChunkId(100), 1_150, with_vectors=True)

        assert [point.chunk_id for point in scrolled] == list(page.ids)
        assert [point.payload for point in scrolled] == list(page.payloads)
        assert page.vectors is not None
        np.testing.assert_array_equal(
            np.stack([point.vector for point in scrolled if point.vector is not None]), page.vectors
        )
        assert (await comparable.page(collection, None, 1)).vectors is None
        assert 0 == len((await comparable.page(collection, ChunkId(1_300), 10)).ids)

    async def test_a_collection_as_it_was_made_fits(self, comparable: Comparable, collection: Collection) -> None:
        assert [] == await comparable.misfits(collection)

    async def test_a_collection_for_other_vectors_does_not_fit(
        self, comparable: Comparable, collection: Collection
    ) -> None:
        """An engine may also refuse to open it at all."""
        other = replace(collection, dimensions=collection.dimensions + 1)
        try:
            told = await comparable.misfits(other)
        except IndexUnavailable as error:
            told = [error.detail]
        assert 1 == len(told)

    async def test_what_is_not_there_cannot_be_compared(self, comparable: Comparable, stamps: Stamped) -> None:
        nowhere = a_collection()
        for call in (
            lambda: comparable.lookup(nowhere, ids(1)),
            lambda: comparable.page(nowhere, None, 10),
            lambda: comparable.misfits(nowhere),
            lambda: stamps.stamped(nowhere),
            lambda: stamps.stamp(nowhere, a_stamp(1)),
        ):
            with pytest.raises(IndexUnavailable):
                await call()
