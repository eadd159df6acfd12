"""The HTTP application in this process, over services that a fixture has opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from ragver.api.app import create_app
from ragver.bootstrap import Services


@asynccontextmanager
async def served(services: Services) -> AsyncIterator[Services]:
    """What the application's lifespan opens: services that are open already, and stay so."""
    yield services


@asynccontextmanager
async def client_of(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, with no network between them."""
    app = create_app(lambda: served(services), services.settings.request_bytes_max)
    app.state.services = services
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://ragver.test") as client:
        yield client
