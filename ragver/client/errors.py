"""What a call to a server can fail with."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from ragver.errors import RagverError
from ragver.wire import Problem

PROBLEM_TYPE = "application/problem+json"
BODY_SHOWN_CHARACTERS = 200
TOO_MANY_REQUESTS = 429


class ApiError(RagverError):
    """The server refused, or could not do, what it was asked: decide by `code`, show `detail` to people.

    - `status` is that of the answer, and 0 where there was none.
    - `retry_after_s` is how long the server asked to be left alone, if it did.
    """

    def __init__(
        self, code: str, status: int, retryable: bool, detail: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    @property
    def undone(self) -> bool:
        """Whether the request is known to have had no effect."""
        return self.status == TOO_MANY_REQUESTS


class ServerUnreachable(ApiError):
    """No answer came. Unless the server was never reached, the request may have been carried out all the same."""

    def __init__(self, detail: str, *, reached: bool = True) -> None:
        super().__init__("server_unreachable", 0, True, detail)
        self._reached = reached

    @property
    def undone(self) -> bool:
        """Whether the request never left."""
        return not self._reached


def invalid(detail: str) -> ApiError:
    """The error for a request that is refused here, before anything is sent."""
    return ApiError("invalid_request", 0, False, detail)


def refusal(response: httpx.Response) -> ApiError:
    """The error that an answer with a status of 400 or more stands for; its body must have been read."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return strange(response)
    return ApiError(
        problem.code, problem.status, problem.retryable, problem.detail, retry_after_s=_retry_after_s(response)
    )


def strange(response: httpx.Response) -> ApiError:
    """The error for an answer that a ragver server would not give, such as a proxy's page."""
    said = " ".join(response.text.split())[:BODY_SHOWN_CHARACTERS]
    request = response.request
    return ApiError(
        "unexpected_answer",
        response.status_code,
        response.status_code >= 500 or response.status_code == TOO_MANY_REQUESTS,
        f"{request.method} {request.url} answered {response.status_code} with something that is no answer of "
        f"ragver's ({said or 'nothing'}); is the URL that of a ragver server?",
        retry_after_s=_retry_after_s(response),
    )


def unreachable(error: httpx.TransportError, url: httpx.URL) -> ServerUnreachable:
    """The error for a request that got no answer."""
    reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    if isinstance(error, httpx.TimeoutException):
        what = "did not answer in time"
    else:
        what = f"cannot be reached ({error or type(error).__name__})"
    return ServerUnreachable(f"the server at {url} {what}", reached=reached)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, section 10.2.3): a number of them, or a date; None if neither."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        until = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None
