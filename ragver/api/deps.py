"""What routes are handed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from ragver import wire
from ragver.bootstrap import Services


async def services(request: Request) -> Services:
    """The services that the application's lifespan opened. Async, or it would cost every request a thread."""
    found: Services = request.app.state.services
    return found


Use = Annotated[Services, Depends(services)]
CorpusPath = Annotated[str, Path(description="the corpus's name", examples=["handbook"])]
KeyPath = Annotated[
    wire.Line,
    Path(
        min_length=1,
        max_length=1024,
        description="the document's key; it may hold slashes",
        examples=["policies/leave.md"],
    ),
]
