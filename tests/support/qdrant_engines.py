"""The engines behind the server adapter: a real server, if one is named, and qdrant-client's local mode."""

from __future__ import annotations

import os
from pathlib import Path

from qdrant_client import AsyncQdrantClient

from ragver.index.qdrant import QdrantIndex
from ragver.index.qdrant_options import Connection, Options
from ragver.index.qdrant_server import QdrantServer

SERVER_URL = os.environ.get("RAGVER_TEST_QDRANT_URL")
API_KEY = os.environ.get("RAGVER_TEST_QDRANT_API_KEY")
LOCAL_WARNING = "ignore:Payload indexes have no effect in the local Qdrant"


def server_index(url: str, *, grpc: bool = False) -> QdrantIndex:
    """The adapter on a real server."""
    return QdrantIndex.connect(Connection(url, API_KEY, grpc=grpc), Options())


def local_index(directory: Path) -> QdrantIndex:
    """The adapter on the engine that qdrant-client brings along, in Python; it has no version to check."""
    options = Options()
    return QdrantIndex(QdrantServer(AsyncQdrantClient(path=str(directory)), options, versioned=False), options)
