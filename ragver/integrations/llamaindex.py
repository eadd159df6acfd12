"""LlamaIndex: a retriever, and a postprocessor that drops what has died since. Needs ``ragver[llamaindex]``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import InstanceOf

from ragver import wire
from ragver.client import AsyncCorpus, Corpus
from ragver.integrations.passages import METADATA, Origin, blocking, described
from ragver.types import CitationStatus, Policy

logger = logging.getLogger("ragver")


class RagverRetriever(BaseRetriever):
    """Passages of a corpus as nodes, all from one epoch; a node's id is that of its chunk.

    ``node.metadata["ragver"]`` has the snapshot and the `ref` that a marker like `[1]` cites the passage by: what
    ``corpus.validate`` needs once the model has written. Neither models nor embeddings are shown it.

    - `corpus` is ``client["policies"]``. That of a ``Client`` serves both faces, asynchronous calls in a thread; that
      of an ``AsyncClient`` only serves these, natively.
    - `k`, `principals`, `filter` and `consistency` are as in ``Corpus.retrieve``.
    """

    def __init__(
        self,
        corpus: Corpus | AsyncCorpus,
        *,
        k: int = 10,
        principals: Sequence[str] | None = None,
        filter: dict[str, Any] | None = None,
        consistency: wire.Consistency | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._corpus = corpus
        self._asked: dict[str, Any] = {"k": k, "principals": principals, "filter": filter, "consistency": consistency}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(blocking(self._corpus).retrieve(query_bundle.query_str, **self._asked))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if isinstance(self._corpus, AsyncCorpus):
            return _nodes(await self._corpus.retrieve(query_bundle.query_str, **self._asked))
        return await asyncio.to_thread(self._retrieve, query_bundle)


class LiveNodes(BaseNodePostprocessor):
    """Drops the nodes whose chunk is no longer live: replaced, deleted, erased, or closed to this reader.

    For nodes that were retrieved a while ago: kept in a session or a cache, reranked by something slow. What is left
    was live when it was asked, and the answer that is written from it is validated all the same.

    - `corpus` and `principals` are as in ``RagverRetriever``.
    - `dropped` is called with each node that goes and the validator's word on it: status and, for people, the reason in
      `detail`. The reason is in the log (``ragver``) as well.

    Raises ``ValueError`` for a node that does not come from ragver: it cannot be checked, so it is not let through.
    Errors of the client are the caller's.
    """

    corpus: InstanceOf[Corpus] | InstanceOf[AsyncCorpus] = Field(exclude=True)
    principals: list[str] | None = None
    dropped: Callable[[NodeWithScore, wire.CitationVerdict], None] | None = Field(default=None, exclude=True)

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex names it."""
        return "RagverLiveNodes"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        corpus = blocking(self.corpus)
        return self._kept(nodes, [corpus.validate(request) for request in self._requests(nodes)])

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not isinstance(self.corpus, AsyncCorpus):
            return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)
        return self._kept(nodes, [await self.corpus.validate(request) for request in self._requests(nodes)])

    def _requests(self, nodes: Sequence[NodeWithScore]) -> Iterator[wire.ValidateRequest]:
        """One for each snapshot that the nodes come from, and for so many of its chunks as one may name."""
        origins = sorted((_origin(node) for node in nodes), key=lambda origin: origin.snapshot)
        for snapshot, group in groupby(origins, key=lambda origin: origin.snapshot):
            chunks = list(dict.fromkeys(origin.chunk_id for origin in group))
            for start in range(0, len(chunks), wire.CITATIONS_MAX):
                yield wire.ValidateRequest(
                    snapshot=snapshot,
                    citations=[wire.CitationInput(chunk_id=one) for one in chunks[start : start + wire.CITATIONS_MAX]],
                    policy=Policy.FLAG,
                    principals=self.principals or [],
                )

    def _kept(self, nodes: Sequence[NodeWithScore], verdicts: Sequence[wire.ValidateResponse]) -> list[NodeWithScore]:
        found = {one.chunk_id: one for verdict in verdicts for one in verdict.citations}
        kept = []
        for node in nodes:
            citation = found[_origin(node).chunk_id]
            if citation.status is CitationStatus.LIVE:
                kept.append(node)
            else:
                self._drop(node, citation)
        return kept

    def _drop(self, node: NodeWithScore, citation: wire.CitationVerdict) -> None:
        logger.info("node %s is dropped (%s): %s", node.node.node_id, citation.status, citation.detail)
        if self.dropped is not None:
            self.dropped(node, citation)


def _nodes(found: wire.RetrieveResponse) -> list[NodeWithScore]:
    return [NodeWithScore(node=_node(found, hit), score=hit.score) for hit in found.hits]


def _node(found: wire.RetrieveResponse, hit: wire.Hit) -> TextNode:
    return TextNode(
        id_=hit.chunk_id,
        text=hit.text,
        metadata=described(found, hit),
        excluded_llm_metadata_keys=[METADATA],
        excluded_embed_metadata_keys=[METADATA],
    )


def _origin(node: NodeWithScore) -> Origin:
    origin = Origin.read(node.node.metadata)
    if origin is None:
        raise ValueError(
            f"node {node.node.node_id} does not come from ragver's retriever (its metadata has no {METADATA!r}), so "
            "nobody can say whether it is live"
        )
    return origin
