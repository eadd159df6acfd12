"""Explanations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ragver import wire
from ragver.api.access import READER
from ragver.api.deps import CorpusPath, Use
from ragver.errors import InvalidRequest
from ragver.types import ChunkId

router = APIRouter(prefix="/corpora/{corpus}/explain", tags=["answers"], dependencies=[READER])


@router.get("", summary="Explain", response_model=wire.Story)
async def explain(
    corpus: CorpusPath,
    services: Use,
    chunk_id: Annotated[wire.ChunkIdText | None, Query()] = None,
    key: Annotated[wire.Line | None, Query(min_length=1, max_length=1024, description="of a document")] = None,
    answer_id: Annotated[wire.AnswerId | None, Query()] = None,
) -> wire.Story:
    """The whole story of a chunk, a document or a recorded answer in time order: born, carried on, indexed,
    retrieved, validated, delivered, dead, erased; by which commits, by whom and why. Name one of the three.
    """
    match chunk_id, key, answer_id:
        case str(), None, None:
            return await services.explanations.chunk(corpus, ChunkId(int(chunk_id)))
        case None, str(), None:
            return await services.explanations.document(corpus, key)
        case None, None, str():
            return await services.explanations.answer(corpus, answer_id)
        case _:
            raise InvalidRequest("name one of `chunk_id`, `key` and `answer_id`")
