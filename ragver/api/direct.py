"""A route that goes straight from the body's bytes to the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from ragver.api import access


class DirectRoute(APIRoute):
    """For the one call that stands in front of every answer.

    The endpoint takes ``(corpus, body, services)`` and returns a model. It is documented by FastAPI from its
    signature as ever, and asks of its caller what it declares; the body that it gets has the principals that this
    caller may have. But pydantic reads the body and writes the answer in one step each, without an intermediate
    JSON tree, a graph of dependencies to solve and a second validation of a model that is valid.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        body_type: type[BaseModel] = endpoint.__annotations__["body"]
        needs = access.declared(self.dependencies)
        assert isinstance(needs, access.Needs), "declared at the route or its router"

        async def handle(request: Request) -> Response:
            caller = await needs(request)
            body = access.read_by(caller, _parsed(body_type, await request.body()))
            answer: BaseModel = await endpoint(request.path_params["corpus"], body, request.app.state.services)
            return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")

        return handle


def _parsed(body_type: type[BaseModel], content: bytes) -> Any:
    try:
        return body_type.model_validate_json(content)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_input=False, include_url=False)]
        raise RequestValidationError(found) from None
