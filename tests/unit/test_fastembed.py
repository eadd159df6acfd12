"""The fastembed embedder against a stand-in with the package's interface, and against the package where it is."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from ragver.embedding.fastembed import BATCH_TEXTS, FastEmbedEmbedder, installed
from ragver.errors import EmbeddingUnavailable, NotInstalled


class TextEmbedding:
    """Behaves as fastembed's class does: lazily, one array a text, questions embedded in their own way."""

    made: ClassVar[list[str]] = []
    threads: ClassVar[set[int]] = set()

    def __init__(self, model_name: str) -> None:
        if model_name == "unknown":
            raise ValueError("Model unknown is not supported in TextEmbedding.")
        self.made.append(model_name)

    def embed(self, documents: Iterable[str], batch_size: int = 256) -> Iterator[NDArray[np.float32]]:
        assert BATCH_TEXTS == batch_size
        self.threads.add(threading.get_ident())
        for text in documents:
            if text == "crash":
                raise RuntimeError("onnxruntime gave up")
            yield np.array([len(text), np.nan if text == "nan" else 0.0], dtype=np.float32)

    def query_embed(self, query: str) -> Iterator[NDArray[np.float32]]:
        self.threads.add(threading.get_ident())
        if query == "crash":
            raise RuntimeError("onnxruntime gave up")
        yield np.array([len(query), 1.0], dtype=np.float32)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fastembed")
    module.__spec__ = ModuleSpec("fastembed", None)
    module.TextEmbedding = TextEmbedding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastembed", module)
    monkeypatch.setattr(TextEmbedding, "made", [])
    monkeypatch.setattr(TextEmbedding, "threads", set())


@pytest.mark.usefixtures("package")
async def test_documents_and_questions_are_embedded_each_in_their_way() -> None:
    """The model is loaded once, and never works in the event loop's thread."""
    embedder = FastEmbedEmbedder("small", 2)
    assert [] == TextEmbedding.made
    assert [[1.0, 0.0], [3.0, 0.0]] == (await embedder.embed_documents(["a", "bbb"])).tolist()
    assert [5.0, 1.0] == (await embedder.embed_query("leave")).tolist()
    assert ["small"] == TextEmbedding.made
    assert threading.get_ident() not in TextEmbedding.threads
    assert TextEmbedding.threads


async def test_no_texts_need_no_model() -> None:
    """Nor the package."""
    assert (0, 2) == (await FastEmbedEmbedder("small", 2).embed_documents([])).shape


@pytest.mark.usefixtures("package")
async def test_a_closed_embedder_lets_go_of_the_model() -> None:
    """Used again, it loads it again."""
    embedder = FastEmbedEmbedder("small", 2)
    await embedder.embed_query("a")
    await embedder.aclose()
    await embedder.embed_query("a")
    assert ["small", "small"] == TextEmbedding.made


@pytest.mark.usefixtures("package")
async def test_an_unknown_model_is_an_error() -> None:
    """fastembed's own words are passed on."""
    with pytest.raises(EmbeddingUnavailable, match="not supported"):
        await FastEmbedEmbedder("unknown", 2).embed_documents(["a"])


@pytest.mark.usefixtures("package")
async def test_a_failing_model_is_an_error() -> None:
    """For documents and for questions."""
    embedder = FastEmbedEmbedder("small", 2)
    with pytest.raises(EmbeddingUnavailable, match="gave up"):
        await embedder.embed_documents(["a", "crash"])
    with pytest.raises(EmbeddingUnavailable, match="gave up"):
        await embedder.embed_query("crash")


@pytest.mark.usefixtures("package")
async def test_vectors_of_another_size_are_an_error() -> None:
    """The corpus was told other dimensions than the model has."""
    with pytest.raises(EmbeddingUnavailable, match=r"1 vectors of shape \[\(2,\)\] where 1 of 3 dimensions"):
        await FastEmbedEmbedder("small", 3).embed_query("a")


@pytest.mark.usefixtures("package")
async def test_numbers_that_are_not_finite_are_an_error() -> None:
    """They would poison every comparison."""
    with pytest.raises(EmbeddingUnavailable, match="not finite"):
        await FastEmbedEmbedder("small", 2).embed_documents(["nan"])


async def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line for pip."""
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(NotInstalled, match=r"pip install 'ragver\[fastembed\]'"):
        await FastEmbedEmbedder("small", 2).embed_query("a")


@pytest.mark.usefixtures("package")
def test_whether_it_is_installed_can_be_asked() -> None:
    """The stand-in counts."""
    assert installed()


@pytest.mark.skipif(find_spec("fastembed") is None, reason="fastembed is not installed")
def test_the_stand_in_has_the_interface_of_the_package() -> None:
    """What the stand-in takes, the package takes."""
    import inspect

    import fastembed

    assert "model_name" in inspect.signature(fastembed.TextEmbedding.__init__).parameters
    assert "batch_size" in inspect.signature(fastembed.TextEmbedding.embed).parameters
    assert "query" in inspect.signature(fastembed.TextEmbedding.query_embed).parameters
