"""An embedder that runs a model on this machine, by Qdrant's fastembed (``pip install 'ragver[fastembed]'``).

fastembed downloads a model when it is first used, and keeps it on disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragver.embedding.port import Matrix
from ragver.errors import EmbeddingUnavailable, NotInstalled

MODEL_DEFAULT = "BAAI/bge-small-en-v1.5"
MODELS = {
    MODEL_DEFAULT: 384,
    "BAAI/bge-base-en-v1.5": 768,
    "BAAI/bge-large-en-v1.5": 1024,
    "sentence-transformers/all-MiniLM-L6-v2": 384,
    "intfloat/multilingual-e5-large": 1024,
}
"""Dimensions of the models that are asked for most; any other model of fastembed is used with its own given."""

INSTALL = "pip install 'ragver[fastembed]'"
BATCH_TEXTS = 64
"""Texts that the model works on at a time; more of them take more memory."""


def installed() -> bool:
    """Whether the package is there; asking does not import it, which takes a second."""
    return find_spec("fastembed") is not None


class FastEmbedEmbedder:
    """A fastembed model. It is loaded on first use, and everything it does happens in a thread.

    Raises ``NotInstalled`` at first use when the package is missing.
    """

    def __init__(self, model: str, dimensions: int) -> None:
        self._name = model
        self._dimensions = dimensions
        self._model: Any = None
        self._loading = threading.Lock()

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        return await asyncio.to_thread(self._embed_documents, list(texts))

    async def embed_query(self, text: str) -> NDArray[np.float32]:
        matrix = await asyncio.to_thread(self._embed_query, text)
        vector: NDArray[np.float32] = matrix[0]
        return vector

    async def aclose(self) -> None:
        self._model = None

    def _embed_documents(self, texts: list[str]) -> Matrix:
        model = self._loaded()
        try:
            return self._checked(model.embed(texts, batch_size=BATCH_TEXTS), len(texts))
        except (ValueError, OSError, RuntimeError) as error:
            raise EmbeddingUnavailable(f"fastembed model {self._name!r} failed: {error}") from error

    def _embed_query(self, text: str) -> Matrix:
        model = self._loaded()
        try:
            # Some models want a question marked as one; fastembed knows which.
            return self._checked(model.query_embed(text), 1)
        except (ValueError, OSError, RuntimeError) as error:
            raise EmbeddingUnavailable(f"fastembed model {self._name!r} failed: {error}") from error

    def _loaded(self) -> Any:
        with self._loading:
            if self._model is None:
                self._model = _load(self._name)
            return self._model

    def _checked(self, vectors: Iterable[NDArray[np.float32]], count: int) -> Matrix:
        rows = [np.asarray(vector, dtype=np.float32) for vector in vectors]
        if len(rows) != count or any(row.shape != (self._dimensions,) for row in rows):
            shapes = sorted({row.shape for row in rows})
            raise EmbeddingUnavailable(
                f"fastembed model {self._name!r} gave {len(rows)} vectors of shape {shapes}"
                f" where {count} of {self._dimensions} dimensions were expected"
            )
        matrix = np.stack(rows)
        if not np.isfinite(matrix).all():
            raise EmbeddingUnavailable(f"fastembed model {self._name!r} gave numbers that are not finite")
        return matrix


def _load(name: str) -> Any:
    try:
        from fastembed import TextEmbedding
    except ImportError as error:
        raise NotInstalled(f"this corpus is embedded by fastembed, which is not installed: {INSTALL}") from error
    try:
        return TextEmbedding(model_name=name)
    except (ValueError, OSError, RuntimeError) as error:
        raise EmbeddingUnavailable(f"fastembed cannot load model {name!r}: {error}") from error
