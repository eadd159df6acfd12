"""The pipeline that ragver is compared with: search the index, let the model write, release what it wrote.

It runs for real, on the same index, vectors and access labels. What it lacks is a notion of time: it takes what
the index holds at that moment, however far the indexer has come, and nobody looks again before the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ragver import wire
from ragver.bootstrap import Services
from ragver.collection import collection_of
from ragver.embedding.hashing import HashingEmbedder
from ragver.embedding.registry import normalised
from ragver.index.port import Match, Search
from ragver.ledger import chunks
from ragver.ledger.chunks import ChunkRecord
from ragver.ledger.corpora import CorpusInfo
from ragver.types import Epoch

ANY_TIME: Final = Epoch(2**53)
"""Later than every epoch: what the index has marked dead is gone, and nothing else is."""


class PlainPipeline:
    """Retrieval as it is done without ragver, from a corpus with the hashing embedder."""

    def __init__(self, services: Services, corpus: str) -> None:
        self._services = services
        self._corpus = corpus

    async def retrieve(self, question: str, principals: Sequence[str], k: int) -> list[wire.Hit]:
        """The k passages that the index holds nearest to the question."""
        info = (await self._services.views.get(self._corpus)).info
        matches = await self._search(info, question, principals, k)
        # Such pipelines keep the text in the index, beside the vector. Ours does not, so it is looked up by the
        # chunk's id, whether the chunk lives or not: the same text as was embedded.
        ids = [match.chunk_id for match in matches]
        records = await chunks.records(self._services.database, info.corpus_id, ids)
        return [_hit(ref, match, records.by_id[match.chunk_id]) for ref, match in enumerate(matches, 1)]

    async def _search(self, info: CorpusInfo, question: str, principals: Sequence[str], k: int) -> list[Match]:
        embedder = HashingEmbedder(info.generation.dimensions)
        vector = await embedder.embed_query(question)
        search = Search(
            vector=normalised(vector.reshape(1, -1), info.generation.distance)[0],
            limit=k,
            epoch=ANY_TIME,
            principals=principals,
            may_hold_newer=False,
        )
        return await self._services.index.search(collection_of(info), search)


def _hit(ref: int, match: Match, record: ChunkRecord) -> wire.Hit:
    document = wire.HitDocument(
        key=record.key, version=record.version, title=record.title, uri=record.uri, metadata=record.metadata
    )
    return wire.Hit(
        ref=ref,
        chunk_id=str(match.chunk_id),
        score=match.score,
        text=record.text or "",
        document=document,
        born_epoch=record.born_epoch,
    )
