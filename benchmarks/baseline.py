"""The bare endpoints that validation is measured against: `python -m benchmarks.baseline URL PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI

from ragver import wire

HEAD = "SELECT epoch FROM corpus WHERE name = $1"


def application(database_url: str) -> FastAPI:
    """Both endpoints take the body of a validation; one answers at once, one after a SELECT by key."""
    pool: asyncpg.Pool | None = None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal pool
        pool = await asyncpg.create_pool(database_url, min_size=16, max_size=16)
        yield
        await pool.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/bare")
    async def bare(body: wire.ValidateRequest) -> dict[str, str]:
        return {"verdict": "pass"}

    @app.post("/select")
    async def select(body: wire.ValidateRequest) -> dict[str, str]:
        assert pool is not None
        await pool.fetchval(HEAD, "bench")
        return {"verdict": "pass"}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]), log_level="warning", access_log=False)
