"""A text is embedded once, however often it is put, and nothing is written while the model is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.embedding.hashing import HashingEmbedder
from ragver.errors import EmbeddingUnavailable, VectorInvalid
from tests.support.ledger import query
from tests.support.services import CORPUS, commit, delete, make_corpus, put, rename, set_acl

VECTORS = "SELECT k.text, e.vector FROM chunk k JOIN embedding e ON e.chunk_id = k.id ORDER BY k.id"


class Embedded:
    """What the model was asked for; it can be told to be away, or to wait."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.away = False
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def taken(self) -> list[str]:
        """The texts embedded since the last call."""
        texts, self.texts = self.texts, []
        return texts


@pytest.fixture
async def embedded(monkeypatch: pytest.MonkeyPatch) -> Embedded:
    watched, original = Embedded(), HashingEmbedder.embed_documents

    async def embed_documents(self: HashingEmbedder, texts: Sequence[str]) -> Any:
        watched.texts += texts
        watched.asked.set()
        await watched.may_answer.wait()
        if watched.away:
            raise EmbeddingUnavailable("the test has switched the model off")
        return await original(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_documents", embed_documents)
    return watched


def chunks(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


async def test_only_new_texts_are_embedded(services: Services, embedded: Embedded) -> None:
    """Neither edits nor renames nor other labels ask for what is known, nor the same text in another document."""
    await make_corpus(services)
    steps: list[tuple[list[wire.Operation], list[str]]] = [
        ([put("a", chunks=chunks("one", "two", "one"))], ["one", "two"]),
        ([put("a", chunks=chunks("two", "three"))], ["three"]),
        ([rename("a", "b"), set_acl("b", "g:h")], []),
        ([put("c", chunks=chunks("three", "one"))], []),
        ([delete("b"), delete("c")], []),
        ([put("a", chunks=chunks("one", "two"))], []),
        ([put("a", "fleeting"), put("a", chunks=chunks("one"))], []),
    ]
    for operations, expected in steps:
        await commit(services, CORPUS, *operations)
        assert expected == embedded.taken(), operations


async def test_a_copied_vector_is_the_same_vector(services: Services, embedded: Embedded) -> None:
    """Every chunk has its own row, equal to the one it was copied from, of unit length."""
    await make_corpus(services)
    for operation in (put("a", "same"), delete("a"), put("b", "same")):
        await commit(services, CORPUS, operation)
    first, second = await query(services.database.url, VECTORS)
    assert first["vector"] == second["vector"]
    assert np.isclose(1.0, np.linalg.norm(np.frombuffer(first["vector"], "<f4")))


async def test_the_model_away_leaves_nothing(services: Services, embedded: Embedded) -> None:
    """The commit fails with an error that says so; no epoch, no document, no chunk; later it goes through."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "known"))
    before = await services.catalog.corpus(CORPUS)
    embedded.away = True
    with pytest.raises(EmbeddingUnavailable):
        await commit(services, CORPUS, put("a", "unknown"), put("b", "known"), idempotency_key="k")
    after = await services.catalog.corpus(CORPUS)
    assert (before.head, before.documents, before.chunks) == (after.head, after.documents, after.chunks)

    assert 2 == (await commit(services, CORPUS, put("b", "known"))).epoch, "what is known needs no model"
    embedded.away = False
    made = await commit(services, CORPUS, put("a", "unknown"), idempotency_key="k")
    assert (3, False) == (made.epoch, made.replayed)


async def test_a_slow_model_holds_up_nobody_else(services: Services, embedded: Embedded) -> None:
    """While one commit waits for its vectors others are made; then it is planned again, with the vectors it has."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "first"))
    embedded.taken()
    embedded.asked.clear()
    embedded.may_answer.clear()
    slow = asyncio.create_task(commit(services, CORPUS, put("a", "slow")))
    await embedded.asked.wait()

    async with asyncio.timeout(5):
        overtaking = [await commit(services, CORPUS, op) for op in (rename("a", "b"), put("c", "first"))]
    assert [2, 3] == [made.epoch for made in overtaking]
    embedded.may_answer.set()

    made = await slow
    assert (4, "created") == (made.epoch, made.documents[0].status)
    assert ["slow"] == embedded.taken()


# ── vectors that the client brings ───────────────────────────────────────────────────────────────────────────


async def test_brought_vectors_are_kept_at_unit_length(services: Services) -> None:
    """With cosine the ledger holds the direction; a zero vector stays zero."""
    await make_corpus(services, embedding={"provider": "external", "dimensions": 2})
    pieces = [{"text": "x", "vector": [3.0, 4.0]}, {"text": "y", "vector": [0.0, 0.0]}]
    await commit(services, CORPUS, put("a", chunks=pieces))
    kept = [np.frombuffer(row["vector"], "<f4").tolist() for row in await query(services.database.url, VECTORS)]
    assert np.allclose([[0.6, 0.8], [0.0, 0.0]], kept)


async def test_another_vector_makes_another_chunk(services: Services) -> None:
    """A chunk is its text and its vector: with a new vector it is a new chunk."""
    await make_corpus(services, embedding={"provider": "external", "dimensions": 2})
    for vector, kept in (([1.0, 0.0], 0), ([2.0, 0.0], 1), ([0.0, 1.0], 0)):
        (change,) = (await commit(services, CORPUS, put("a", chunks=[{"text": "x", "vector": vector}]))).documents
        assert kept == change.chunks_kept, vector


@pytest.mark.parametrize("piece", [{"text": "x"}, {"text": "x", "vector": [1.0]}, {"text": "x", "vector": [1e300, 1]}])
async def test_a_corpus_without_a_model_needs_fitting_vectors(services: Services, piece: dict[str, Any]) -> None:
    """Without one, or with one of another size, nothing is written."""
    await make_corpus(services, embedding={"provider": "external", "dimensions": 2})
    with pytest.raises(VectorInvalid):
        await commit(services, CORPUS, put("a", chunks=[piece]))
    assert 0 == (await services.catalog.corpus(CORPUS)).head
