"""The client: a ragver server's API as typed calls. Needs pydantic and httpx, and no database."""

from ragver.client.client import AsyncClient
from ragver.client.errors import ApiError, ServerUnreachable

__all__ = ["ApiError", "AsyncClient", "ServerUnreachable"]
