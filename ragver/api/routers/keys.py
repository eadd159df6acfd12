"""API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from ragver import wire
from ragver.api.access import ADMIN
from ragver.api.deps import Use

router = APIRouter(prefix="/keys", tags=["keys"], dependencies=[ADMIN])


@router.post("", status_code=201, summary="Make a key", response_model=wire.KeyCreated, responses={409: {}})
async def create(body: wire.KeyCreate, services: Use) -> wire.KeyCreated:
    """Make a key. This answer alone holds its secret. From the first key on, nobody gets in without one."""
    return await services.keys.create_key(body)


@router.get("", summary="List keys", response_model=wire.KeyList)
async def list_all(services: Use) -> wire.KeyList:
    """Every key there has been, oldest first, with its last use; of their secrets nothing."""
    return wire.KeyList(keys=await services.keys.keys())


@router.delete("/{key_id}", summary="Revoke a key", response_model=wire.ApiKey)
async def revoke(
    key_id: Annotated[str, Path(max_length=100, description="the key's id", examples=["3f9c2a7b51d0"])], services: Use
) -> wire.ApiKey:
    """End a key for good: in this process at once, in every other within a second."""
    return await services.keys.revoke_key(key_id)
