"""Commits and the feed of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from ragver import wire
from ragver.api import feed
from ragver.api.access import READER, WRITER, Who
from ragver.api.deps import CorpusPath, Use
from ragver.errors import InvalidRequest
from ragver.telemetry import Stages

router = APIRouter(prefix="/corpora/{corpus}/commits", tags=["commits"])

FEED_PAGE_MAX = 1_000
IdempotencyHeader = Annotated[
    wire.IdempotencyKey | None,
    Header(alias="Idempotency-Key", description="the same key and request are applied once and answered the same"),
]
FenceQuery = Annotated[
    bool, Query(description="return only when no verdict from before this commit can still be acted on")
]
ReasonQuery = Annotated[wire.Reason | None, Query(description="why, for the log of commits")]
ActorQuery = Annotated[wire.Actor | None, Query(description="who, for the log of commits")]


@router.post(
    "",
    status_code=201,
    summary="Commit",
    dependencies=[WRITER],
    response_model=wire.CommitResult,
    responses={409: {}, 413: {}},
)
async def commit(
    corpus: CorpusPath,
    body: wire.CommitRequest,
    services: Use,
    who: Who,
    response: Response,
    idempotency_key: IdempotencyHeader = None,
    fence: FenceQuery = False,
) -> wire.CommitResult:
    """Apply operations in order, as one commit: only the state after the last one is ever visible.

    With an API key, the log keeps `key:NAME` as the actor, and after it the `actor` of the request.
    `Server-Timing` tells where the time went: split, embed, ledger, fence.
    """
    stages = Stages()
    actor = who.acts_as(body.actor)
    result = await services.writer.commit(
        corpus, body, actor=actor, idempotency_key=idempotency_key, fence=fence, stages=stages
    )
    response.headers["Server-Timing"] = stages.server_timing()
    return result


@router.get("/verification", summary="Verify the log", dependencies=[READER], response_model=wire.LogVerification)
async def verification(
    corpus: CorpusPath,
    services: Use,
    epoch: Annotated[int | None, Query(ge=1, le=2**53, description="an epoch whose hash was written down")] = None,
    hash: Annotated[str | None, Query(min_length=64, max_length=64, description="its hash: a `head_hash`")] = None,
) -> wire.LogVerification:
    """Walk the hash chain of the log from the first commit to the head, and name the first broken row.

    Whoever can write to the database could compute the chain anew or cut off its end. Write `head` and `head_hash`
    down elsewhere, and give them as `epoch` and `hash` the next time: then neither goes unseen.
    """
    if (epoch is None) != (hash is None):
        raise InvalidRequest("`epoch` and `hash` belong together: give both or neither")
    anchor = None if epoch is None or hash is None else (epoch, hash)
    return await services.catalog.verify_log(corpus, anchor)


@router.get(
    "",
    summary="Follow the changes",
    dependencies=[READER],
    response_model=wire.CommitPage,
    responses=feed.RESPONSES,
)
async def changes(
    corpus: CorpusPath,
    services: Use,
    request: Request,
    since: Annotated[int, Query(ge=0, le=2**53, description="commits after this epoch")] = 0,
    limit: Annotated[int, Query(ge=1, le=FEED_PAGE_MAX)] = 100,
    accept: feed.Accept = "",
    last_event_id: feed.LastEventId = None,
) -> wire.CommitPage | Response:
    """Commits after an epoch, oldest first. With `Accept: text/event-stream` the answer stays open and follows;
    event ids are epochs, so a client that reconnects with `Last-Event-ID` misses nothing."""
    if not feed.wanted(accept):
        return wire.CommitPage(commits=await services.catalog.commits(corpus, since, limit))

    async def read(place: str) -> tuple[list[feed.Event], str]:
        _, head = await services.views.fresh(corpus)
        epoch = int(place)
        commits = [] if head.epoch <= epoch else await services.catalog.commits(corpus, epoch, FEED_PAGE_MAX)
        events = [feed.Event(str(entry.epoch), "commit", entry.model_dump_json()) for entry in commits]
        return events, events[-1].id if events else place

    return await feed.response(request, read, str(since if last_event_id is None else _epoch(last_event_id)))


def _epoch(last_event_id: str) -> int:
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 16:
        raise InvalidRequest("`Last-Event-ID` is the epoch of the last event received")
    return int(last_event_id)
