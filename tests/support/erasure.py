"""Erasures in a corpus of a few commits, and what is left of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ragver import wire
from ragver.bootstrap import Services
from tests.support.five_commits import history
from tests.support.ledger import all_points, query
from tests.support.services import CORPUS, make_corpus, open_test_services
from tests.support.spine import EXTERNAL, index_all


@asynccontextmanager
async def five_commits_indexed(database_url: str, directory: Path) -> AsyncIterator[Services]:
    """A corpus with the five commits, all of them indexed; no indexer and no worker runs."""
    async with open_test_services(database_url, directory) as services:
        services.erasures._patience_s = 0.0
        await make_corpus(services, embedding=EXTERNAL, verdict_ttl_ms=1, filterable={"team": "keyword"})
        await history(services)
        await index_all(services)
        yield services


async def erase(services: Services, *keys: str, keys_too: bool = False) -> wire.ErasureReceipt:
    request = wire.ErasureRequest(keys=list(keys), reason="asked for", actor="dpo", keys_too=keys_too)
    return await services.erasures.erase(CORPUS, request)


async def completed(services: Services, *keys: str, keys_too: bool = False) -> wire.ErasureReceipt:
    """Erase, let the indexer pass, and let the worker come by."""
    receipt = await erase(services, *keys, keys_too=keys_too)
    await index_all(services)
    await services.erasures.work()
    return await services.erasures.get(CORPUS, int(receipt.id))


def states(receipt: wire.ErasureReceipt | wire.ErasureCheck) -> list[str]:
    return [store.state for store in receipt.stores]


async def points(services: Services) -> list[int]:
    return [int(point.chunk_id) for point in await all_points(services, CORPUS)]


async def chunk_ids(services: Services, *wanted: str) -> list[int]:
    rows = await query(services.database.url, "SELECT id FROM chunk WHERE text = ANY($1) ORDER BY id", list(wanted))
    return [row["id"] for row in rows]
