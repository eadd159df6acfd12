"""What a route asks of its caller.

Every route says it in one line, `dependencies=[READER]`, at the route or for its whole router; the application does
not start with one that does not. What a declaration cannot know, the route does itself with its `Who`:

- a route whose body names `principals` goes by ``read_by(who, body)`` and declares ``READER_BY_PRINCIPALS``; a
  ``DirectRoute`` is handed such a body;
- a route that shows documents hides those that ``who.principals`` may not read, and declares the same;
- a route that writes to the log takes the actor from ``who.acts_as(body.actor)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

from ragver.api.authentication import CALLER
from ragver.bootstrap import Services
from ragver.caller import Caller
from ragver.errors import KeyMissing, Unavailable
from ragver.types import Role

BodyT = TypeVar("BodyT", bound=BaseModel)


class Open:
    """Asks nothing: whoever reaches the server may call the route."""

    async def __call__(self) -> None:
        """Nothing to check."""


class Needs(SecurityBase):
    """A role, for the corpus in the path, or, where there is none, for all corpora.

    - `by_principals`: the route shows only what the caller's principals may read. Without it, a key whose
      principals are fixed is refused.
    - `by_corpora`: the path names no corpus, and the route keeps to the caller's corpora by itself.
    """

    def __init__(self, role: Role, *, by_principals: bool = False, by_corpora: bool = False) -> None:
        self.role = role
        self.by_principals = by_principals
        self.by_corpora = by_corpora
        self.scheme_name = "key"
        self.model = HTTPBearer(
            bearerFormat="rgv_…", description="An API key. A server that has none yet asks for none."
        )

    async def __call__(self, request: Request) -> Caller:
        """The caller, if it may call this route. Raises ``NotAllowed``."""
        caller = caller_of(request)
        caller.check_role(self.role)
        if not self.by_principals:
            caller.check_sees_everything()
        corpus = request.path_params.get("corpus")
        if corpus is not None:
            caller.check_corpus(corpus)
        elif not self.by_corpora:
            caller.check_whole_ledger()
        return caller


OPEN = Depends(Open())
READER = Depends(Needs(Role.READER))
"""May read, but not with fixed principals: the answer shows more than one reader may see."""
READER_BY_PRINCIPALS = Depends(Needs(Role.READER, by_principals=True))
"""May read; the route keeps to the caller's principals."""
READER_BY_CORPORA = Depends(Needs(Role.READER, by_principals=True, by_corpora=True))
"""May read; the route keeps to the caller's corpora, and shows nothing of any document."""
WRITER = Depends(Needs(Role.WRITER))
ADMIN = Depends(Needs(Role.ADMIN))
ADMIN_BY_CORPORA = Depends(Needs(Role.ADMIN, by_corpora=True))
"""May administer; the route keeps to the caller's corpora."""


def caller_of(request: Request) -> Caller:
    """Who is asking. Raises ``KeyMissing`` where nobody looked: never lets somebody in by mistake."""
    caller: Caller | None = request.scope.get(CALLER)
    if caller is None:
        raise KeyMissing("nobody looked at this request's key")
    return caller


async def _who(request: Request) -> Caller:
    return caller_of(request)


Who = Annotated[Caller, Depends(_who)]


def read_by(caller: Caller, body: BodyT) -> BodyT:
    """A body whose `principals` are those that the caller may have; one without the field as it is."""
    named: list[str] | None = getattr(body, "principals", None)
    if named is None or caller.principals is None:
        return body
    return body.model_copy(update={"principals": list(caller.reads_as(named))})


async def hung_up(request: Request) -> bool:
    """Whether an answer that stays open should end: its client has gone, or its key is no longer good.

    Also if that cannot be known, the ledger being away: whoever asks anew then learns why.
    """
    services: Services = request.app.state.services
    try:
        return await request.is_disconnected() or not await services.keys.still_good(caller_of(request))
    except Unavailable:
        return True


def declared(dependencies: Iterable[Dependency]) -> Open | Needs | None:
    """What a route asks of its caller, by its dependencies and those of its router; None if it does not say it once."""
    said = [one.dependency for one in dependencies if isinstance(one.dependency, Open | Needs)]
    return said[0] if len(said) == 1 else None


def api_routes(app: FastAPI) -> list[RouteContext]:
    """The application's routes, but for its own description."""
    return [found for found in iter_route_contexts(app.routes) if isinstance(found.original_route, APIRoute)]


def check_declarations(app: FastAPI) -> None:
    """Raise unless every route says what it asks of its caller: a route that forgot would be open."""
    for route in api_routes(app):
        asked: Any = declared(route.dependencies)
        if asked is None or (isinstance(asked, Open) and str(route.path).startswith("/v1/")):
            raise TypeError(
                f"{route.methods} {route.path} does not say whom it lets in: give it or its router "
                "`dependencies=[READER]` or another of ragver.api.access, once"
            )
