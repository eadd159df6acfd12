"""From what a corpus says about its embedding to an embedder, and what holds for every vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import httpx
import numpy as np
from numpy.typing import NDArray

from ragver import wire
from ragver.embedding import fastembed, openai
from ragver.embedding.fastembed import FastEmbedEmbedder
from ragver.embedding.hashing import DIMENSIONS_DEFAULT, HashingEmbedder
from ragver.embedding.openai import OpenAIEmbedder
from ragver.embedding.port import Embedder, Matrix
from ragver.errors import InvalidRequest, SettingsInvalid, VectorInvalid
from ragver.types import Distance

COMPONENT_MAX = 1e15
"""The largest number in a client's vector: squares of it can be summed in float32 over the most dimensions."""


def complete(spec: wire.Embedding) -> wire.Embedding:
    """The spec with model and dimensions filled in. Raises ``InvalidRequest`` if there can be no such embedder."""
    match spec.provider:
        case "hashing":
            if spec.model is not None:
                raise InvalidRequest("the hashing embedder has no models: leave `model` out")
            return _with(spec, dimensions=spec.dimensions or DIMENSIONS_DEFAULT)
        case "openai":
            return _complete_openai(spec)
        case "fastembed":
            return _complete_fastembed(spec)
        case "external":
            if spec.dimensions is None:
                raise InvalidRequest(
                    "an external embedding needs `dimensions`: the length of the vectors you will send"
                )
            return spec
        case _:
            assert_never(spec.provider)


def _complete_openai(spec: wire.Embedding) -> wire.Embedding:
    if spec.model is None:
        raise InvalidRequest(f"an openai embedding needs a `model`, such as {next(iter(openai.MODELS))!r}")
    native = openai.MODELS.get(spec.model)
    shorter = native is not None and spec.dimensions is not None and spec.dimensions < native
    if shorter and spec.model in openai.SHORTENABLE:
        return spec
    return _with_dimensions_of(spec, openai.MODELS, spec.model)


def _complete_fastembed(spec: wire.Embedding) -> wire.Embedding:
    if not fastembed.installed():
        raise InvalidRequest(f"fastembed is not installed where ragver runs: {fastembed.INSTALL}")
    return _with_dimensions_of(spec, fastembed.MODELS, spec.model or fastembed.MODEL_DEFAULT)


def _with_dimensions_of(spec: wire.Embedding, models: Mapping[str, int], model: str) -> wire.Embedding:
    native = models.get(model)
    dimensions = spec.dimensions or native
    if dimensions is None:
        raise InvalidRequest(f"the size of model {model!r} is not known: give its `dimensions`")
    if native is not None and dimensions != native:
        raise InvalidRequest(f"model {model!r} has {native} dimensions and cannot have {dimensions}")
    return _with(spec, model=model, dimensions=dimensions)


def _with(spec: wire.Embedding, **known: str | int) -> wire.Embedding:
    return spec.model_copy(update=known)


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """Where the OpenAI-compatible service is."""

    base_url: str
    api_key: str | None = field(repr=False)
    timeout_s: float
    """For one request as a whole; a repeated one has it anew."""


class Embedders:
    """The embedders of a process: one for every model in use, however many corpora share it."""

    def __init__(self, openai_settings: OpenAISettings) -> None:
        """Raises ``SettingsInvalid`` for a base URL or a key that cannot be used."""
        _check_url(openai_settings.base_url)
        _check_key(openai_settings.api_key)
        self._openai = openai_settings
        self._made: dict[tuple[str, str | None, int], Embedder] = {}

    def get(self, spec: wire.Embedding) -> Embedder | None:
        """The embedder of a complete spec; None when clients bring the vectors themselves."""
        assert spec.dimensions is not None, "only a completed spec has an embedder"
        if spec.provider == "external":
            return None
        wanted = (spec.provider, spec.model, spec.dimensions)
        if wanted not in self._made:
            self._made[wanted] = self._make(spec, spec.dimensions)
        return self._made[wanted]

    async def aclose(self) -> None:
        """Let go of every model and connection."""
        made, self._made = list(self._made.values()), {}
        for embedder in made:
            await embedder.aclose()

    def _make(self, spec: wire.Embedding, dimensions: int) -> Embedder:
        if spec.provider == "hashing":
            return HashingEmbedder(dimensions)
        assert spec.model is not None, "a completed spec names the model"
        if spec.provider == "fastembed":
            return FastEmbedEmbedder(spec.model, dimensions)
        return OpenAIEmbedder(
            base_url=self._openai.base_url,
            api_key=self._openai.api_key,
            model=spec.model,
            dimensions=dimensions,
            timeout_s=self._openai.timeout_s,
        )


def _check_url(base_url: str) -> None:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise SettingsInvalid(f"RAGVER_OPENAI_BASE_URL is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsInvalid("RAGVER_OPENAI_BASE_URL must begin with http:// or https:// and name a host")


def _check_key(api_key: str | None) -> None:
    # A line break carried over from a file makes a header that HTTP refuses, with the key in the message.
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key):
        raise SettingsInvalid("RAGVER_OPENAI_API_KEY holds a line break, a space at an end or a non-ASCII character")


def normalised(matrix: Matrix, distance: Distance) -> Matrix:
    """The rows as they are stored: for cosine at unit length, zero rows staying zero; else as they are."""
    if distance is not Distance.COSINE:
        return matrix
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    return (matrix / np.where(lengths == 0.0, 1.0, lengths)).astype(np.float32)


def as_vector(values: Sequence[float], dimensions: int) -> NDArray[np.float32]:
    """A vector that a client sent. Raises ``VectorInvalid`` if it is not `dimensions` finite numbers of sane size."""
    if len(values) != dimensions:
        raise VectorInvalid(f"the vector has {len(values)} numbers, and the corpus needs {dimensions}")
    vector = np.asarray(values, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise VectorInvalid("the vector holds a number that is not finite")
    if (np.abs(vector) > COMPONENT_MAX).any():
        raise VectorInvalid(f"the vector holds a number beyond ±{COMPONENT_MAX:g}; scale it down")
    return vector.astype(np.float32)
