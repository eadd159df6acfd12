"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from ragver import __version__
from ragver.api import access, problems
from ragver.api.authentication import Authentication
from ragver.api.limits import BodyLimit
from ragver.api.routers import (
    answers,
    commits,
    corpora,
    documents,
    erasures,
    explaining,
    generations,
    health,
    keys,
    recalls,
    reconciliations,
    retention,
    retrieval,
    validation,
    webhooks,
)
from ragver.bootstrap import Services
from ragver.wire import Problem

DESCRIPTION = """
The consistency layer for retrieval-augmented generation.

Every change to a corpus is a **commit** and takes the next **epoch**. A **retrieval** reads one epoch and
answers with a **snapshot** token. Before generated text is released, **validate** checks what it cites against
the ledger as it is now.

Errors are problem documents (RFC 9457): decide by `code` and `retryable`, show `detail` to people.
"""

TAGS = [
    {"name": "corpora", "description": "Named sets of documents, each with an epoch counter of its own."},
    {"name": "commits", "description": "Atomic changes to any number of documents, and the feed of them."},
    {"name": "documents", "description": "Documents one at a time, at any epoch that can still be read."},
    {"name": "generations", "description": "The index built anew, or for another embedding, while the old one serves."},
    {"name": "retrieval", "description": "Passages at one epoch."},
    {"name": "validation", "description": "The check in front of every answer."},
    {"name": "answers", "description": "Answers on record: may they be served again, and what of them has died since."},
    {"name": "keys", "description": "Who may ask, and for what."},
    {"name": "retention", "description": "Pins that hold an epoch readable, and the removal of what is behind it."},
    {"name": "erasure", "description": "Documents removed for good, with a signed receipt."},
    {"name": "operations", "description": "Liveness, readiness, metrics."},
]

_ERRORS = {
    status: {"model": Problem, "description": text, "content": {problems.MEDIA_TYPE: {}}}
    for status, text in [
        (400, "The body is not JSON, or a snapshot token is not genuine"),
        (401, "No API key, or not a good one"),
        (403, "The API key is not for this"),
        (404, "No such corpus or document"),
        (409, "The request does not fit the present state"),
        (410, "The snapshot lies before the horizon"),
        (413, "Too large"),
        (422, "The request is not valid"),
        (429, "The API key has asked too often"),
        (503, "A store is away or behind; try again"),
    ]
}


def create_app(
    open_services: Callable[[], AbstractAsyncContextManager[Services]], request_bytes_max: int, *, guarded: bool = True
) -> FastAPI:
    """The application; it opens its services when it starts and closes them when it stops.

    With `guarded`, it asks for an API key as soon as the ledger has one. Without, whoever calls it is the operator:
    right only where it is called in the process that made it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services() as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="ragver",
        version=__version__,
        summary="The consistency layer for retrieval-augmented generation",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        responses={422: _ERRORS[422], 503: _ERRORS[503]},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    problems.install(app)
    app.add_middleware(BodyLimit, bytes_max=request_bytes_max)
    # Added last, so it comes first: nothing of a body is read for somebody who may not come in.
    app.add_middleware(Authentication, guarded=guarded)
    # Routes are tried in this order, so the two that stand in front of every answer come first.
    for router in (
        validation,
        retrieval,
        corpora,
        commits,
        documents,
        answers,
        recalls,
        explaining,
        webhooks,
        generations,
        retention,
        erasures,
        reconciliations,
        keys,
    ):
        app.include_router(
            router.router, prefix="/v1", responses={status: _ERRORS[status] for status in (401, 403, 404, 429)}
        )
    app.include_router(health.router)
    access.check_declarations(app)
    return app
