"""The OpenAPI document: kept in the tree, and true of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from schema import dump_openapi
from tests.support.postgres import new_database
from tests.support.server import running_server

REQUEST_S_MAX = 30
document = schemathesis.openapi.from_path(dump_openapi.FILE)


def test_document_in_the_tree_is_the_applications() -> None:
    """`schema/openapi.json` is what the code says; `python -m schema.dump_openapi` renews it."""
    assert dump_openapi.document() == dump_openapi.FILE.read_text()


@pytest.fixture(scope="module")
def server(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server with a corpus in it, so that some of what is asked at random is there; the client may do everything.

    Keys are made at random too, and the first would close the server, so there is one from the beginning.
    """
    directory: Path = tmp_path_factory.mktemp("openapi")
    with (
        new_database(postgres_url, template=migrated_template) as database_url,
        running_server(directory, database_url=database_url, secret_key="only this test") as running,
        httpx.Client(base_url=running.url) as client,
    ):
        key = client.post("/v1/keys", json={"name": "operator", "role": "admin"}).json()
        client.headers["Authorization"] = f"Bearer {key['secret']}"
        made = client.post("/v1/corpora", json={"name": "handbook", "filterable": {"team": "keyword"}})
        assert made.status_code == 201
        yield client


@document.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_makes_the_server_fail(case: schemathesis.Case[Any], server: httpx.Client) -> None:
    """Whatever the document allows, and what it does not: no 5xx, and answers of the shape that it promises."""
    if "corpus" in case.path_parameters:
        case.path_parameters["corpus"] = "handbook"
    # A stream without an end is asked for by this header alone.
    case.headers["Accept"] = "application/json"
    if case.method == "DELETE" and case.path == "/v1/corpora/{corpus}":
        case.path_parameters["corpus"] = "another"
    response = case.call_and_validate(
        base_url=str(server.base_url),
        timeout=REQUEST_S_MAX,
        headers={"Authorization": server.headers["Authorization"]},
        checks=[not_a_server_error, response_schema_conformance],
    )
    # Now and then a case leaves the key out on purpose.
    assert response.status_code != 401 or "Authorization" not in response.request.headers
