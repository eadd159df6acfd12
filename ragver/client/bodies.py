"""From arguments to requests, and from answers to models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel, ValidationError

from ragver.client.errors import invalid, strange
from ragver.wire import ValidateRequest

PAGE = 1_000
"""What calls that go through everything ask for at a time."""

Model = TypeVar("Model", bound=BaseModel)


def built(kind: type[Model], **fields: Any) -> Model:
    """A request from the fields that are not None. Raises ``ApiError`` (`invalid_request`) where they don't fit."""
    try:
        return kind.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise invalid("; ".join(_named(one["loc"], one["msg"]) for one in error.errors())) from error


def whole(kind: type[Model], given: Any, name: str, **options: Any) -> Model:
    """`given` if it is a whole request already; else a request with it as the field `name`, and the options.

    A whole request takes no options beside it: they could only contradict it.
    """
    if not isinstance(given, kind):
        return built(kind, **{name: given}, **options)
    beside = [option for option, value in options.items() if value is not None]
    if beside:
        raise invalid(f"a whole {kind.__name__} takes no options beside it; put {', '.join(beside)} into it")
    return given


def parsed(kind: type[Model], response: httpx.Response) -> Model:
    """The answer as a model. Fields that only a newer server knows are passed over."""
    try:
        return kind.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise strange(response) from error


def server_url(url: str) -> httpx.URL:
    """Where a server is. Raises ``ApiError`` (`invalid_request`) for what is no HTTP address."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise invalid(f"{url!r} is no URL: {error}") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise invalid(f"a server has an HTTP address such as http://127.0.0.1:8000, not {url!r}")
    return found


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that says who is asking (RFC 6750)."""
    if api_key is None:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise invalid("an API key is printable ASCII; this one has other characters")
    return {"Authorization": f"Bearer {api_key}"}


def path_of(corpus: str, *rest: str) -> str:
    """The path of something in a corpus, whatever characters its parts have."""
    return "/".join(["/v1/corpora", *(quoted(part) for part in (corpus, *rest))])


def quoted(part: str) -> str:
    # Dots as well, so that a key like `../x` reaches the server as it is and not resolved.
    return quote(part, safe="").replace(".", "%2E")


def idempotent(key: str | None) -> dict[str, str]:
    """The header that lets a commit be repeated; with a key of its own if the caller has none."""
    if key is not None and not key.isascii():
        raise invalid(f"an idempotency key is a header, so ASCII: {key!r} is not")
    return {"Idempotency-Key": key if key is not None else str(uuid4())}


def identified(request: ValidateRequest) -> ValidateRequest:
    """The request with an id for the answer if it is to be recorded without one, so that it can be repeated."""
    if not request.record or request.answer_id is not None:
        return request
    return request.model_copy(update={"answer_id": str(uuid4())})


def conditional(if_version: int | None) -> dict[str, str]:
    """The precondition (RFC 9110, section 13) that a document has this version, or that there is none."""
    match if_version:
        case None:
            return {}
        case 0:
            return {"If-None-Match": "*"}
        case _:
            return {"If-Match": f'"{if_version}"'}


def server_timing(response: httpx.Response) -> dict[str, float]:
    """Seconds by stage, from the Server-Timing header (W3C)."""
    stages: dict[str, float] = {}
    for entry in response.headers.get("Server-Timing", "").split(","):
        name, _, milliseconds = entry.strip().partition(";dur=")
        if milliseconds:
            stages[name] = float(milliseconds) / 1000
    return stages


def _named(location: Iterable[object], message: str) -> str:
    place = ".".join(map(str, location))
    return f"{place}: {message}" if place else message
