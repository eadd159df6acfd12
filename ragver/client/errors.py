"""What a call to a server can fail with."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from ragver.errors import RagverError
from ragver.wire import Problem

PROBLEM_TYPE = "application/problem+json"
BODY_SHOWN_CHARACTERS = 200


class ApiError(RagverError):
    """The server refused, or could not do, what it was asked: decide by `code`, show `detail` to people.

    `status` is that of the answer, and 0 where there was none.
    """

    def __init__(self, code: str, status: int, retryable: bool, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.retryable = retryable


class ServerUnreachable(ApiError):
    """No answer came, so the request may or may not have been carried out."""

    def __init__(self, detail: str) -> None:
        super().__init__("server_unreachable", 0, True, detail)


def refusal(response: httpx.Response) -> ApiError:
    """The error that an answer with a status of 400 or more stands for; its body must have been read."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        return strange(response)
    return ApiError(problem.code, problem.status, problem.retryable, problem.detail)


def strange(response: httpx.Response) -> ApiError:
    """The error for an answer that a ragver server would not give, such as a proxy's page."""
    said = " ".join(response.text.split())[:BODY_SHOWN_CHARACTERS]
    request = response.request
    return ApiError(
        "unexpected_answer",
        response.status_code,
        response.status_code >= 500,
        f"{request.method} {request.url} answered {response.status_code} with something that is no answer of "
        f"ragver's ({said or 'nothing'}); is the URL that of a ragver server?",
    )


def unreachable(error: httpx.TransportError, url: httpx.URL) -> ServerUnreachable:
    """The error for a request that got no answer."""
    if isinstance(error, httpx.TimeoutException):
        return ServerUnreachable(f"the server at {url} did not answer in time")
    return ServerUnreachable(f"the server at {url} cannot be reached ({error or type(error).__name__})")
