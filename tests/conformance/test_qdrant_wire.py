"""The server adapter keeps the port's promises over HTTP, on a small server that speaks Qdrant's REST."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ragver.index.port import Index
from ragver.index.qdrant import QdrantIndex
from ragver.index.qdrant_options import Connection, Options
from ragver.testing.index_suite import IndexConformance
from tests.support.qdrant_wire import WireServer, wire_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireServer]:
    with wire_server(tmp_path_factory.mktemp("wire")) as server:
        yield server


class TestQdrantWire(IndexConformance):
    @pytest.fixture
    def open_index(self, server: WireServer) -> Callable[[], Index]:
        return lambda: QdrantIndex.connect(Connection(server.url), Options())
