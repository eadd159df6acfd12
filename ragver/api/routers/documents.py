"""Documents, one at a time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from ragver import wire
from ragver.api.access import READER_BY_PRINCIPALS, WRITER, Who
from ragver.api.deps import CorpusPath, KeyPath, Use
from ragver.api.routers.commits import ActorQuery, FenceQuery, IdempotencyHeader, ReasonQuery
from ragver.errors import InvalidRequest, PreconditionFailed, VersionConflict
from ragver.types import DocumentStatus

router = APIRouter(prefix="/corpora/{corpus}", tags=["documents"])

PAGE_MAX = 1_000
AtEpoch = Annotated[int | None, Query(ge=0, le=2**53, description="as it was at this epoch")]
IfMatch = Annotated[str | None, Header(alias="If-Match", description='apply only to this version, like `"3"`')]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="`*`: only if there is none")]


@router.get(
    "/documents",
    summary="List documents",
    dependencies=[READER_BY_PRINCIPALS],
    response_model=wire.DocumentPage,
    responses={410: {}},
)
async def list_all(
    corpus: CorpusPath,
    services: Use,
    who: Who,
    prefix: Annotated[wire.Line, Query(max_length=1024)] = "",
    at_epoch: AtEpoch = None,
    cursor: Annotated[str | None, Query(max_length=4096)] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
) -> wire.DocumentPage:
    """Documents in the order of their keys. Later pages show the same epoch as the first.

    A key with fixed principals is shown those that they may read today, here and in the reads below.
    """
    return await services.catalog.documents(corpus, prefix, at_epoch, cursor, limit, who.principals)


@router.get(
    "/versions",
    summary="A document's history",
    dependencies=[READER_BY_PRINCIPALS],
    response_model=wire.DocumentVersions,
)
async def versions(
    corpus: CorpusPath, services: Use, who: Who, key: Annotated[wire.Line, Query(min_length=1, max_length=1024)]
) -> wire.DocumentVersions:
    """All versions of the document that lives under a key, or was the last to do so, oldest first."""
    return await services.catalog.versions(corpus, key, who.principals)


@router.get(
    "/documents/{key:path}",
    summary="Read a document",
    dependencies=[READER_BY_PRINCIPALS],
    response_model=wire.Document,
    responses={410: {}},
)
async def get(
    corpus: CorpusPath, key: KeyPath, services: Use, who: Who, response: Response, at_epoch: AtEpoch = None
) -> wire.Document:
    """The document, its text exactly as it was put. `ETag` is its version."""
    document = await services.catalog.document(corpus, key, at_epoch, who.principals)
    response.headers["ETag"] = f'"{document.version}"'
    return document


@router.put(
    "/documents/{key:path}",
    summary="Put a document",
    dependencies=[WRITER],
    response_model=wire.CommitResult,
    responses={412: {}, 413: {}},
)
async def put(
    corpus: CorpusPath,
    key: KeyPath,
    body: wire.DocumentInput,
    services: Use,
    who: Who,
    response: Response,
    idempotency_key: IdempotencyHeader = None,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
    fence: FenceQuery = False,
    reason: ReasonQuery = None,
    actor: ActorQuery = None,
) -> wire.CommitResult:
    """Give the document a whole new state, in a commit of its own; 201 if it is new."""
    operation = wire.Put(
        op="put",
        key=key,
        if_version=_expected_version(if_match, if_none_match),
        **{name: getattr(body, name) for name in body.model_fields_set},
    )
    request = wire.CommitRequest(ops=[operation], reason=reason, actor=actor)
    result = await _commit(services, who, corpus, request, idempotency_key, fence)
    change = result.documents[0]
    response.status_code = 201 if change.status is DocumentStatus.CREATED else 200
    response.headers["ETag"] = f'"{change.version}"'
    return result


@router.delete(
    "/documents/{key:path}",
    summary="Delete a document",
    dependencies=[WRITER],
    response_model=wire.CommitResult,
    responses={412: {}},
)
async def delete(
    corpus: CorpusPath,
    key: KeyPath,
    services: Use,
    who: Who,
    idempotency_key: IdempotencyHeader = None,
    if_match: IfMatch = None,
    fence: FenceQuery = False,
    reason: ReasonQuery = None,
    actor: ActorQuery = None,
) -> wire.CommitResult:
    """Delete the document, in a commit of its own. What was retrieved from it can no longer be cited."""
    operation = wire.Delete(op="delete", key=key, if_version=_expected_version(if_match, None))
    request = wire.CommitRequest(ops=[operation], reason=reason, actor=actor)
    return await _commit(services, who, corpus, request, idempotency_key, fence)


async def _commit(
    services: Use, who: Who, corpus: str, request: wire.CommitRequest, idempotency_key: str | None, fence: bool
) -> wire.CommitResult:
    try:
        return await services.writer.commit(
            corpus, request, actor=who.acts_as(request.actor), idempotency_key=idempotency_key, fence=fence
        )
    except VersionConflict as error:
        raise PreconditionFailed(error.detail) from error


def _expected_version(if_match: str | None, if_none_match: str | None) -> int | None:
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise InvalidRequest("`If-None-Match` takes `*` and no `If-Match` beside it")
        return 0
    if if_match is None or if_match.strip() == "*":
        return None
    version = if_match.strip().removeprefix("W/").strip('"')
    if not (version.isascii() and version.isdigit() and len(version) <= 15):
        raise InvalidRequest('`If-Match` takes the `ETag` of a read, like `"3"`, or `*`')
    return int(version)
