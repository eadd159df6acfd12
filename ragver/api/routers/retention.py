"""Pins, and the removal of what has passed the horizon."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from ragver import wire
from ragver.api.access import ADMIN, READER, WRITER, Who
from ragver.api.deps import CorpusPath, Use

router = APIRouter(prefix="/corpora/{corpus}", tags=["retention"])

PIN_ID_MAX = 2**63 - 1
PIN_ID = "a `pin_id`"


@router.post(
    "/pins",
    status_code=201,
    summary="Pin an epoch",
    dependencies=[WRITER],
    response_model=wire.Pin,
    responses={400: {}, 409: {}, 410: {}},
)
async def pin(corpus: CorpusPath, body: wire.PinRequest, services: Use) -> wire.Pin:
    """Hold an epoch, or that of a snapshot, readable for `ttl_s` seconds, whatever the corpus's retention.

    A pin that was given holds: the horizon does not pass it before it expires or is removed. Pins do not hold back
    an erasure.
    """
    return await services.pins.add(corpus, body)


@router.get("/pins", summary="List pins", dependencies=[READER], response_model=wire.PinList)
async def pins(corpus: CorpusPath, services: Use) -> wire.PinList:
    """The pins that hold now, the oldest epoch first."""
    return wire.PinList(pins=await services.pins.all(corpus))


@router.delete("/pins", status_code=204, summary="Remove a pin", dependencies=[WRITER])
async def unpin(
    corpus: CorpusPath, services: Use, pin_id: Annotated[int, Query(ge=1, le=PIN_ID_MAX, description=PIN_ID)]
) -> None:
    """Let go of an epoch; the next collection may move the horizon past it."""
    await services.pins.remove(corpus, pin_id)


@router.delete("/pins/{pin_id}", status_code=204, summary="Remove a pin, named in the path", dependencies=[WRITER])
async def unpin_by_path(
    corpus: CorpusPath, services: Use, pin_id: Annotated[int, Path(ge=1, le=PIN_ID_MAX, description=PIN_ID)]
) -> None:
    """The same as `DELETE …/pins?pin_id=`."""
    await services.pins.remove(corpus, pin_id)


@router.post("/gc", summary="Collect", dependencies=[ADMIN], response_model=wire.GcResult)
async def collect(
    corpus: CorpusPath,
    services: Use,
    who: Who,
    full: Annotated[bool, Query(description="rewrite the stores' files without what was removed")] = False,
) -> wire.GcResult:
    """Move the horizon as far as the retention and the pins let it, and remove what no readable epoch can see.

    The server does this by itself now and then; 503 `collection_running` while it does. With `full`, each table of the
    ledger is locked while it is rewritten, for all corpora; the answer then takes as long as that.
    """
    if full:
        who.check_whole_ledger()
    return await services.retention.collect(corpus, full=full)
