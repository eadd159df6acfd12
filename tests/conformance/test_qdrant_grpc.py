"""The server adapter keeps the port's promises over gRPC, by way of a gateway to the small server of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from ragver.index.port import Index
from ragver.index.qdrant import QdrantIndex
from ragver.index.qdrant_options import Connection, Options
from ragver.testing.comparison_suite import ComparisonConformance
from tests.support.qdrant_gateway import grpc_gateway
from tests.support.qdrant_wire import WireServer, wire_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireServer]:
    with wire_server(tmp_path_factory.mktemp("wire")) as server:
        yield server


class TestQdrantGrpc(ComparisonConformance):
    @pytest.fixture
    async def open_index(self, server: WireServer) -> AsyncIterator[Callable[[], Index]]:
        async with grpc_gateway(server.url) as port:
            # REST would fail: nothing listens at the URL's port.
            connection = Connection("http://127.0.0.1:1", grpc=True, grpc_port=port)
            yield lambda: QdrantIndex.connect(connection, Options())
