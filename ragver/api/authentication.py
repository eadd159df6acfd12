"""Finds out who is asking, before anything reads the request."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ragver.api.problems import problem_response
from ragver.bootstrap import Services
from ragver.caller import OPERATOR, Caller
from ragver.errors import RagverError

CALLER = "ragver.caller"
"""Where in a request's scope its caller is."""
METRICS = "/metrics"
_SCHEME = b"bearer "


class Authentication:
    """Refuses requests that come without a good key where one is needed, with 401, or too often, with 429.

    Whether, for healthz, readyz and the API's own description, nobody needs one. The metrics are also shown while
    the ledger is away: that is when they are looked at.
    """

    def __init__(self, app: ASGIApp, guarded: bool) -> None:
        self._app = app
        self._guarded = guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _wants_a_caller(scope["path"]):
            try:
                scope[CALLER] = await self._caller(scope)
            except RagverError as error:
                await problem_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        if not self._guarded:
            return OPERATOR
        services: Services = scope["app"].state.services
        return await services.keys.admit(_presented(scope), ledger_may_be_away=scope["path"] == METRICS)


def _wants_a_caller(path: str) -> bool:
    return path.startswith("/v1/") or path == METRICS


def _presented(scope: Scope) -> str | None:
    """What stands after `Bearer` in the first `Authorization` header; all of it if it is of another kind."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            credentials: bytes = value[len(_SCHEME) :] if value[: len(_SCHEME)].lower() == _SCHEME else value
            return credentials.strip().decode("latin-1")
    return None
