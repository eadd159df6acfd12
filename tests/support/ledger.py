"""What must hold of every ledger, and of the index beside it, checked by other means than the code under test."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np

from ragver.bootstrap import Services
from ragver.collection import collection_of
from ragver.index.port import StoredPoint

SCROLL_POINTS = 500
WAIT_S_MAX = 20
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LOG = """
    SELECT l.* FROM commit_log l JOIN corpus c ON c.id = l.corpus_id WHERE c.name = $1 ORDER BY l.epoch
"""

_WAITING = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = $1
"""

_CHUNKS = """
    SELECT k.id, k.document_id, k.born_epoch, k.died_epoch, d.acl, e.vector,
           k.died_epoch IS NULL OR k.died_epoch > c.horizon AS readable
    FROM chunk k
    JOIN corpus c ON c.id = k.corpus_id
    JOIN document d ON d.corpus_id = k.corpus_id AND d.id = k.document_id
    JOIN embedding e ON e.corpus_id = k.corpus_id AND e.generation_id = c.generation_id AND e.chunk_id = k.id
    WHERE c.name = $1 ORDER BY k.id
"""


async def query(url: str, statement: str, *values: Any) -> list[Any]:
    """The rows of a statement, on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        rows: list[Any] = await connection.fetch(statement, *values)
        return rows
    finally:
        await connection.close()


async def waits_for_a_lock(url: str) -> None:
    """Return once a session of this database waits for another one."""
    await waits(url, "Lock")


async def waits(url: str, event_type: str) -> None:
    """Return once a session of this database waits for an event of this type."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if await query(url, _WAITING, event_type):
                return
            await asyncio.sleep(0.01)


async def check_chain(url: str, corpus: str) -> int:
    """Check epochs, times and hashes of the log from the first commit on; how many there are."""
    log = await query(url, _LOG, corpus)
    check_order(log)
    previous = bytes(32)
    for row in log:
        assert previous == row["prev_hash"], f"epoch {row['epoch']} does not follow the one before it"
        previous = _hash(row)
        assert previous == row["hash"], f"epoch {row['epoch']} was altered"
    return len(log)


def check_order(log: Sequence[Any]) -> None:
    """Epochs are 1, 2, 3 …, and time does not go back."""
    assert list(range(1, len(log) + 1)) == [row["epoch"] for row in log]
    times = [row["committed_at"] for row in log]
    assert sorted(times) == times


def _hash(row: Any) -> bytes:
    said = [row["actor"], row["reason"], row["idempotency_key"], row["request_hash"].hex(), row["summary"]]
    canonical = json.dumps(said, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).digest()
    microseconds = (row["committed_at"] - UNIX_EPOCH) // timedelta(microseconds=1)
    return hashlib.sha256(row["prev_hash"] + digest + struct.pack(">qq", row["epoch"], microseconds)).digest()


async def check_index(services: Services, corpus: str) -> int:
    """Check that the index holds exactly the chunks of the ledger, as they are; how many there are."""
    expected = await query(services.database.url, _CHUNKS, corpus)
    points = await all_points(services, corpus)
    assert [row["id"] for row in expected] == [point.chunk_id for point in points]
    for row, point in zip(expected, points, strict=True):
        assert row["document_id"] == point.payload["document_id"]
        assert row["born_epoch"] == point.payload["born_epoch"]
        assert row["died_epoch"] == point.payload.get("died_epoch"), point.chunk_id
        if row["readable"]:
            assert row["acl"] == point.payload["acl"], point.chunk_id
        assert point.vector is not None
        assert np.allclose(np.frombuffer(row["vector"], "<f4"), point.vector, atol=1e-6)
    return len(points)


async def all_points(services: Services, corpus: str) -> list[StoredPoint]:
    """Every point of the corpus's serving collection, by id."""
    view, _ = await services.views.fresh(corpus)
    collection = collection_of(view.info)
    points: list[StoredPoint] = []
    while True:
        after = points[-1].chunk_id if points else None
        page = await services.index.scroll(collection, after, SCROLL_POINTS, with_vectors=True)
        if not page:
            return points
        points += page
