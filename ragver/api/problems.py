"""Errors as RFC 9457 problem documents: one place where an error becomes an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ragver import errors
from ragver.errors import InvalidRequest, KeyInvalid, NotAllowed, RagverError, RateLimited, Unauthenticated
from ragver.telemetry import logger
from ragver.wire import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
ERRORS_SHOWN_MAX = 20
_OWN_CODES = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InvalidRequest)
}


def install(app: FastAPI) -> None:
    """Let every error of the application leave it as a problem document."""
    app.add_exception_handler(RagverError, _ragver_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


def problem_response(error: RagverError, details: Sequence[Mapping[str, Any]] | None = None) -> Response:
    """The answer that an error becomes."""
    problem = Problem(
        type=f"urn:ragver:error:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        retryable=error.retryable,
        detail=error.detail,
        errors=None if details is None else [dict(detail) for detail in details],
    )
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=_headers(error),
    )


def _headers(error: RagverError) -> dict[str, str] | None:
    """When to come again (RFC 9110), or what kind of key is asked for (RFC 6750)."""
    match error:
        case RateLimited():
            return {"Retry-After": str(max(RETRY_AFTER_S, ceil(error.retry_after_s)))}
        case KeyInvalid():
            return {"WWW-Authenticate": 'Bearer realm="ragver", error="invalid_token"'}
        case Unauthenticated():
            return {"WWW-Authenticate": 'Bearer realm="ragver"'}
        case NotAllowed():
            return {"WWW-Authenticate": 'Bearer realm="ragver", error="insufficient_scope"'}
        case _:
            return {"Retry-After": str(RETRY_AFTER_S)} if error.retryable else None


async def _ragver_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RagverError)
    if error.status >= 500:
        logger.warning("request_failed", path=request.url.path, code=error.code, detail=error.detail)
    return problem_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[:ERRORS_SHOWN_MAX]
    # What was sent is not echoed: it may be long, secret, or no well-formed text.
    details = [{"at": _place(one["loc"]), "message": one["msg"], "type": one["type"]} for one in found]
    kind = next((_OWN_CODES[one["type"]] for one in found if one["type"] in _OWN_CODES), InvalidRequest)
    return problem_response(kind("; ".join(f"{one['at']}: {one['message']}" for one in details)), details)


def _place(location: Sequence[Any]) -> str:
    return ".".join(_printable(str(part)) for part in location)


def _printable(part: str) -> str:
    return part.encode("ascii", "backslashreplace").decode()[:100]


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(
        type="about:blank",
        title=str(error.detail),
        status=error.status_code,
        code="http_error" if error.status_code != 404 else "route_not_found",
        retryable=False,
        detail=f"{request.method} {_printable(request.url.path)}: {error.detail}",
    )
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=error.status_code,
        media_type=MEDIA_TYPE,
        headers=error.headers,
    )


async def _unexpected_error(request: Request, error: Exception) -> Response:
    logger.error("unexpected_error", path=request.url.path, exc_info=error)
    return problem_response(RagverError("something went wrong that should not have; the server's log has the details"))
