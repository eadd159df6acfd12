"""The server adapter keeps the port's promises on qdrant-client's local mode, an engine of its own in Python.

What local mode cannot do is dealt with here and nowhere else: it has no version, it warns that it builds no payload
indexes, and it normalises vectors once more that are of unit length already.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ragver.index.port import Index, Point
from ragver.index.scoring import normalised
from ragver.testing.comparison_suite import ComparisonConformance
from ragver.testing.index_suite import a_collection, a_payload, a_vector
from ragver.types import ChunkId, Distance
from tests.support.qdrant_engines import LOCAL_WARNING, local_index

pytestmark = pytest.mark.filterwarnings(LOCAL_WARNING)


class TestQdrantLocal(ComparisonConformance):
    @pytest.fixture
    def open_index(self, tmp_path: Path) -> Callable[[], Index]:
        return lambda: local_index(tmp_path / "index")

    @pytest.mark.parametrize("dimensions", [3, 384, 1_536])
    async def test_vectors_come_back_bit_by_bit(self, index: Index, dimensions: int) -> None:
        """Not here: but no number is off by more than a rounding."""
        collection = a_collection(dimensions=dimensions)
        await index.ensure(collection)
        vectors = normalised(Distance.COSINE, np.stack([a_vector(seed, dimensions) for seed in range(50)]))
        await index.upsert(
            collection, [Point(ChunkId(row + 1), vector, a_payload()) for row, vector in enumerate(vectors)]
        )

        points = await index.scroll(collection, None, 50, with_vectors=True)

        stored = np.stack([point.vector for point in points if point.vector is not None])
        np.testing.assert_allclose(vectors, stored, rtol=2**-22)
