"""The bare endpoints that validation is measured against: `python -m benchmarks.baseline URL PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from ragver import wire
from ragver.ledger.database import asyncpg_url

CONNECTIONS = 16
BY_DRIVER = "SELECT epoch FROM corpus WHERE name = $1"
BY_SESSION = text("SELECT epoch FROM corpus WHERE name = :name")
ANSWER = {"verdict": "pass"}


def application(database_url: str) -> FastAPI:
    """All take the body of a validation; one answers at once, two after a SELECT by key."""
    engine = create_async_engine(asyncpg_url(database_url), pool_size=CONNECTIONS, max_overflow=0)
    sessions = async_sessionmaker(engine)
    pool: asyncpg.Pool | None = None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal pool
        pool = await asyncpg.create_pool(database_url, min_size=CONNECTIONS, max_size=CONNECTIONS)
        yield
        await pool.close()
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/bare")
    async def bare(body: wire.ValidateRequest) -> dict[str, str]:
        return ANSWER

    @app.post("/select")
    async def select(body: wire.ValidateRequest) -> dict[str, str]:
        async with sessions() as session:
            await session.execute(BY_SESSION, {"name": "bench"})
        return ANSWER

    @app.post("/select-driver")
    async def select_by_driver(body: wire.ValidateRequest) -> dict[str, str]:
        assert pool is not None
        await pool.fetchval(BY_DRIVER, "bench")
        return ANSWER

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]), log_level="warning", access_log=False)
