"""What ragver asks of an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors. Safe to use from many tasks at once.

    Errors: ``EmbeddingUnavailable`` when the model does not answer, or answers with something that is not one
    finite vector of the right size per text. Vectors are returned as the model gave them, not normalised.
    """

    @property
    def dimensions(self) -> int:
        """The length of every vector."""

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """One float32 row per text, shape ``(len(texts), dimensions)``. No texts: shape ``(0, dimensions)``."""

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        """A float32 vector, shape ``(dimensions,)``, to be compared with those of documents."""

    async def aclose(self) -> None:
        """Let go of connections and model."""
