"""Recalls of delivered answers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ragver import recalls, wire
from ragver.api import feed
from ragver.api.access import READER
from ragver.api.deps import CorpusPath, Use
from ragver.ledger.recalls import Position
from ragver.types import Epoch, Scope

router = APIRouter(prefix="/corpora/{corpus}/recalls", tags=["answers"])

PAGE_MAX = 1_000


@router.get("", summary="Recalls", dependencies=[READER], response_model=wire.RecallPage, responses=feed.RESPONSES)
async def list_all(
    corpus: CorpusPath,
    services: Use,
    request: Request,
    since_epoch: Annotated[int, Query(ge=0, le=2**53, description="what commits after this epoch have recalled")] = 0,
    cursor: Annotated[str | None, Query(max_length=64, description="go on from here, not from `since_epoch`")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    scope: Annotated[
        Scope, Query(description="recall answers that cite what died, or `context`: that rest on it at all")
    ] = Scope.CITED,
    accept: feed.Accept = "",
    last_event_id: feed.LastEventId = None,
) -> wire.RecallPage | Response:
    """Delivered answers that rest on what has died since, been erased, or been closed to their reader: by which
    commit and why, oldest first.

    An answer was delivered if a verdict of pass or flag is on record for it. A commit that kills several of its chunks
    recalls it once; a later one recalls it again. With `Accept: text/event-stream` the answer stays open and follows;
    event ids are cursors, so a client that reconnects with `Last-Event-ID` misses nothing.
    """
    after = Position(Epoch(since_epoch)) if cursor is None else recalls.position_of(cursor)
    if not feed.wanted(accept):
        return await services.recalls.page(corpus, after, scope, limit)

    async def read(place: str) -> tuple[list[feed.Event], str]:
        page = await services.recalls.page(corpus, recalls.position_of(place), scope, PAGE_MAX)
        return [feed.Event(one.recall_id, "recall", one.model_dump_json()) for one in page.recalls], page.next_cursor

    return await feed.response(request, read, recalls.cursor_of(after) if last_event_id is None else last_event_id)
