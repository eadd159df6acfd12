"""What a corpus may say about its embedding, what it gets, and what holds for every vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ragver import wire
from ragver.embedding import fastembed
from ragver.embedding.fastembed import FastEmbedEmbedder
from ragver.embedding.hashing import DIMENSIONS_DEFAULT, HashingEmbedder
from ragver.embedding.openai import OpenAIEmbedder
from ragver.embedding.port import Matrix
from ragver.embedding.registry import Embedders, OpenAISettings, as_vector, complete, normalised
from ragver.errors import InvalidRequest, SettingsInvalid, VectorInvalid
from ragver.types import Distance

SETTINGS = OpenAISettings(base_url="http://models.test/v1", api_key="sk-secret", timeout_s=1.0)


@pytest.fixture(autouse=True)
def with_fastembed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastembed, "installed", lambda: True)


def spec(provider: str, **rest: Any) -> wire.Embedding:
    return wire.Embedding.model_validate({"provider": provider, **rest})


@pytest.mark.parametrize(
    ("given_spec", "model", "dimensions"),
    [
        (spec("hashing"), None, DIMENSIONS_DEFAULT),
        (spec("hashing", dimensions=64), None, 64),
        (spec("openai", model="text-embedding-3-small"), "text-embedding-3-small", 1536),
        (spec("openai", model="text-embedding-3-large", dimensions=256), "text-embedding-3-large", 256),
        (spec("openai", model="nomic-embed-text", dimensions=768), "nomic-embed-text", 768),
        (spec("fastembed"), "BAAI/bge-small-en-v1.5", 384),
        (spec("fastembed", model="jinaai/other", dimensions=768), "jinaai/other", 768),
        (spec("external", dimensions=3), None, 3),
        (spec("external", model="ours", dimensions=3), "ours", 3),
    ],
)
def test_what_is_left_out_is_filled_in(given_spec: wire.Embedding, model: str | None, dimensions: int) -> None:
    """Completing twice changes nothing more."""
    completed = complete(given_spec)
    assert (model, dimensions) == (completed.model, completed.dimensions)
    assert completed == complete(completed)


def test_the_distance_is_kept() -> None:
    """It is the corpus's own choice."""
    assert Distance.DOT is complete(spec("hashing", distance="dot")).distance


@pytest.mark.parametrize(
    ("given_spec", "message"),
    [
        (spec("hashing", model="large"), "leave `model` out"),
        (spec("openai"), "needs a `model`"),
        (spec("openai", dimensions=3), "needs a `model`"),
        (spec("openai", model="nomic-embed-text"), "give its `dimensions`"),
        (spec("openai", model="text-embedding-3-small", dimensions=3072), "has 1536 dimensions and cannot have 3072"),
        (spec("openai", model="text-embedding-ada-002", dimensions=512), "has 1536 dimensions and cannot have 512"),
        (spec("fastembed", dimensions=512), "has 384 dimensions and cannot have 512"),
        (spec("fastembed", model="jinaai/other"), "give its `dimensions`"),
        (spec("external"), "needs `dimensions`"),
    ],
)
def test_an_impossible_embedding_is_refused(given_spec: wire.Embedding, message: str) -> None:
    """When the corpus is made, not when its first document comes."""
    with pytest.raises(InvalidRequest, match=message):
        complete(given_spec)


def test_fastembed_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the line for pip."""
    monkeypatch.setattr(fastembed, "installed", lambda: False)
    with pytest.raises(InvalidRequest, match="pip install"):
        complete(spec("fastembed"))


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (spec("hashing", dimensions=64), HashingEmbedder),
        (spec("openai", model="m", dimensions=3), OpenAIEmbedder),
        (spec("fastembed", model="m", dimensions=3), FastEmbedEmbedder),
    ],
)
async def test_corpora_with_the_same_model_share_the_embedder(wanted: wire.Embedding, kind: type) -> None:
    """The distance makes no difference to it, the dimensions do."""
    embedders = Embedders(SETTINGS)
    embedder = embedders.get(wanted)
    assert embedder is not None
    assert kind is type(embedder)
    assert wanted.dimensions == embedder.dimensions
    assert embedder is embedders.get(wanted.model_copy(update={"distance": Distance.DOT}))
    assert embedder is not embedders.get(wanted.model_copy(update={"dimensions": 5}))
    await embedders.aclose()


def test_external_vectors_have_no_embedder() -> None:
    """Clients bring them."""
    assert Embedders(SETTINGS).get(spec("external", dimensions=3)) is None


@pytest.mark.parametrize(
    "base_url", ["", "models.test/v1", "ftp://models.test", "http://", "http://[::1", "http://a:b"]
)
def test_a_base_url_that_is_none_is_found_at_the_start(base_url: str) -> None:
    """Not with the first text."""
    with pytest.raises(SettingsInvalid, match="RAGVER_OPENAI_BASE_URL"):
        Embedders(OpenAISettings(base_url=base_url, api_key=None, timeout_s=1.0))


@pytest.mark.parametrize("api_key", ["sk-secret\n", " sk-secret", "sk-secrét", "sk\tsecret"])
def test_a_key_that_no_header_can_carry_is_found_at_the_start(api_key: str) -> None:
    """And the message does not hold it."""
    with pytest.raises(SettingsInvalid, match="RAGVER_OPENAI_API_KEY") as caught:
        Embedders(OpenAISettings(base_url="http://models.test", api_key=api_key, timeout_s=1.0))
    assert "secr" not in str(caught.value)


def test_settings_do_not_show_the_key() -> None:
    """Not even in a traceback with locals."""
    assert "sk-secret" not in repr(SETTINGS)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=FINITE)


@given(MATRICES)
def test_for_cosine_rows_are_unit_or_zero(matrix: Matrix) -> None:
    """Also where squares of the numbers would be too large or too small for float32."""
    unit = normalised(matrix, Distance.COSINE)
    lengths = np.linalg.norm(unit.astype(np.float64), axis=1)
    assert np.float32 == unit.dtype
    np.testing.assert_allclose(lengths, np.any(matrix != 0.0, axis=1).astype(float), atol=1e-6)


@given(MATRICES)
def test_a_row_comes_out_the_same_alone_and_among_others(matrix: Matrix) -> None:
    """Vectors are compared by checksum, so how they were batched must not show."""
    together = normalised(matrix, Distance.COSINE)
    for row, expected in zip(matrix, together, strict=True):
        assert expected.tobytes() == normalised(row[np.newaxis], Distance.COSINE)[0].tobytes()


@pytest.mark.parametrize("distance", [Distance.DOT, Distance.EUCLID, Distance.MANHATTAN])
def test_for_other_distances_rows_stay_as_they_are(distance: Distance) -> None:
    """Their length means something."""
    assert [[3.0, 4.0]] == normalised(np.array([[3, 4]], dtype=np.float32), distance).tolist()


def test_no_rows_stay_no_rows() -> None:
    """With their width."""
    assert (0, 4) == normalised(np.zeros((0, 4), dtype=np.float32), Distance.COSINE).shape


def test_a_good_vector_becomes_float32() -> None:
    """The nearest float32 of each number; integers are numbers too."""
    vector = as_vector([1, 0.1, -1e-60], 3)
    assert np.float32 == vector.dtype
    assert [1.0, float(np.float32(0.1)), 0.0] == vector.tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "has 2 numbers, and the corpus needs 3"),
        ([1.0] * 4, "has 4 numbers, and the corpus needs 3"),
        ([1.0, 2.0, math.nan], "not finite"),
        ([1.0, 2.0, -math.inf], "not finite"),
        ([1.0, 2.0, 1e39], "scale it down"),
        ([1.0, 2.0, -1e30], "scale it down"),
    ],
)
def test_a_bad_vector_is_refused(values: list[float], message: str) -> None:
    """The message tells what is wrong with it."""
    with pytest.raises(VectorInvalid, match=message):
        as_vector(values, 3)


def test_the_largest_vectors_can_be_compared() -> None:
    """Distances between them are finite in float32, over as many dimensions as there may be."""
    high = as_vector([1e15] * wire.DIMENSIONS_MAX, wire.DIMENSIONS_MAX)
    assert np.isfinite(np.square(high - -high).sum())
