"""Vectors that lie as embeddings of real text do: around the centres of topics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragver.embedding.registry import normalised
from ragver.types import Distance

DIMENSIONS = 384
CLUSTERS = 200
SPREAD = 0.4
CENTRES_SEED = 14


def clustered(count: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors around centres that are always the same, so that questions lie where the points do."""
    centres = np.random.default_rng(CENTRES_SEED).standard_normal((CLUSTERS, DIMENSIONS), np.float32)
    generator = np.random.default_rng(seed)
    points = generator.standard_normal((count, DIMENSIONS), np.float32)
    points *= SPREAD
    points += centres[generator.integers(CLUSTERS, size=count)]
    return normalised(points, Distance.COSINE)
