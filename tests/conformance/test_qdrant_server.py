"""The server adapter keeps the port's promises on a real server, if RAGVER_TEST_QDRANT_URL names one.

RAGVER_TEST_QDRANT_API_KEY goes with it. Both protocols are tried; the collections made here are removed again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from ragver.index.port import Collection, Index
from ragver.testing.comparison_suite import ComparisonConformance
from tests.support.qdrant_engines import SERVER_URL, server_index

if SERVER_URL is None:
    pytest.skip("RAGVER_TEST_QDRANT_URL names no server", allow_module_level=True)


class TestQdrantServer(ComparisonConformance):
    @pytest.fixture(params=[False, True], ids=["rest", "grpc"])
    async def open_index(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Callable[[], Index]]:
        assert SERVER_URL is not None
        index = server_index(SERVER_URL, grpc=request.param)
        made: list[Collection] = []
        ensure = type(index).ensure

        async def noted(index: Index, collection: Collection) -> bool:
            made.append(collection)
            return await ensure(index, collection)  # type: ignore[arg-type]

        monkeypatch.setattr(type(index), "ensure", noted)
        yield lambda: server_index(SERVER_URL, grpc=request.param)
        for collection in made:
            await index.drop(collection)
        await index.close()
