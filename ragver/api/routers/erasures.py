"""Erasures and their receipts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from ragver import wire
from ragver.api.access import ADMIN, READER_BY_CORPORA, Who
from ragver.api.deps import CorpusPath, Use

router = APIRouter(tags=["erasure"])

ErasureId = Annotated[int, Path(ge=1, le=2**63 - 1, description="a receipt's `id`")]


@router.post(
    "/corpora/{corpus}/erasures",
    status_code=201,
    summary="Erase documents",
    dependencies=[ADMIN],
    response_model=wire.ErasureReceipt,
)
async def erase(corpus: CorpusPath, body: wire.ErasureRequest, services: Use, who: Who) -> wire.ErasureReceipt:
    """Remove for good every version of every document that ever lived under one of these keys, also under other keys.

    It is a commit, and works under pins and for old epochs. Text, titles, metadata and vectors are out of the ledger
    when this returns. `pending` means that the index is not done, or could not be asked: it completes by itself, so
    ask for the receipt again.
    """
    request = body.model_copy(update={"actor": who.acts_as(body.actor)})
    return await services.erasures.erase(corpus, request)


@router.get(
    "/corpora/{corpus}/erasures", summary="List erasures", dependencies=[ADMIN], response_model=wire.ErasureList
)
async def list_all(corpus: CorpusPath, services: Use) -> wire.ErasureList:
    """The receipts, newest first."""
    return wire.ErasureList(erasures=await services.erasures.all(corpus))


@router.get(
    "/corpora/{corpus}/erasures/{erasure_id}",
    summary="Get a receipt",
    dependencies=[ADMIN],
    response_model=wire.ErasureReceipt,
)
async def get(corpus: CorpusPath, erasure_id: ErasureId, services: Use) -> wire.ErasureReceipt:
    """The receipt as it is now, signed."""
    return await services.erasures.get(corpus, erasure_id)


@router.post(
    "/corpora/{corpus}/erasures/{erasure_id}/verification",
    summary="Look at the stores again",
    dependencies=[ADMIN],
    response_model=wire.ErasureCheck,
)
async def verify(corpus: CorpusPath, erasure_id: ErasureId, services: Use) -> wire.ErasureCheck:
    """Look for what should be gone in every store, and change nothing."""
    return await services.erasures.check(corpus, erasure_id)


@router.get(
    "/receipt-key",
    summary="Get the key of the receipts",
    dependencies=[READER_BY_CORPORA],
    response_model=wire.ReceiptKey,
)
async def receipt_key(services: Use) -> wire.ReceiptKey:
    """The public key that this ledger's receipts can be checked with. Keep it elsewhere: a receipt that carries its
    own key proves nothing."""
    return services.erasures.key
