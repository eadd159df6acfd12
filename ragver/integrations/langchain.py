"""LangChain: a retriever over any corpus, and a vector store. Needs ``ragver[langchain]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from pydantic import InstanceOf

from ragver import wire
from ragver.client import ApiError, AsyncCorpus, Corpus
from ragver.integrations.passages import blocking, described

T = TypeVar("T")

COMMIT_DOCUMENTS_MAX = 1_000
"""Documents that one commit takes; more of them become several commits."""


class RagverRetriever(BaseRetriever):
    """Passages of a corpus as documents, all from one epoch.

    ``document.metadata["ragver"]`` has the snapshot, the `ref` that a marker like `[1]` cites the passage by, and the
    chunk's id: what ``corpus.validate`` needs once the model has written.

    - `corpus` is ``client["policies"]``. That of a ``Client`` serves both faces, asynchronous calls in a thread; that
      of an ``AsyncClient`` only serves these, natively.
    - `k`, `principals`, `filter` and `consistency` are as in ``Corpus.retrieve``; a call may give others.
    """

    corpus: InstanceOf[Corpus] | InstanceOf[AsyncCorpus]
    k: int = 4
    principals: list[str] | None = None
    filter: dict[str, Any] | None = None
    consistency: wire.Consistency | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return _passages(blocking(self.corpus).retrieve(query, **self._asked(options)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        if isinstance(self.corpus, AsyncCorpus):
            return _passages(await self.corpus.retrieve(query, **self._asked(options)))
        return _passages(await run_in_executor(None, self.corpus.retrieve, query, **self._asked(options)))

    def _asked(self, options: dict[str, Any]) -> dict[str, Any]:
        own = {"k": self.k, "principals": self.principals, "filter": self.filter, "consistency": self.consistency}
        return own | options


class RagverVectorStore(VectorStore):
    """A corpus as a vector store: each LangChain document is a document of one chunk, its id the key.

    - With `embedding`, vectors are made here; the corpus must have been made for vectors of that size
      (``wire.Embedding(provider="external", dimensions=…)``). Without, the corpus embeds.
    - Documents that are added together are one commit, up to ``COMMIT_DOCUMENTS_MAX``.
    - Documents come back as they were put. ``RagverRetriever`` on the same corpus also gives what validation needs.
    - `principals` are the reader's labels; `acl` in ``add_documents`` says who may read.
    - `relevance` makes a score one from 0 to 1; that for cosine, if not given.
    - `corpus` is as in ``RagverRetriever``.
    """

    def __init__(
        self,
        corpus: Corpus | AsyncCorpus,
        embedding: Embeddings | None = None,
        *,
        principals: Sequence[str] | None = None,
        relevance: Callable[[float], float] | None = None,
    ) -> None:
        self._corpus = corpus
        self._embedding = embedding
        self._principals = principals
        self._relevance = relevance or _cosine_relevance

    @property
    def embeddings(self) -> Embeddings | None:
        """What makes the vectors, if it is not the corpus."""
        return self._embedding

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────

    def add_documents(
        self,
        documents: list[Document],
        *,
        ids: Sequence[str | None] | None = None,
        acl: Sequence[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """Put documents under `ids`, else their own, else new ones, and answer with the ids.

        `options` are those of ``Corpus.commit``.
        """
        keys = _keys(documents, ids)
        texts = [one.page_content for one in documents]
        vectors = None if self._embedding is None else self._embedding.embed_documents(texts)
        for ops in _batches(_puts(documents, keys, vectors, acl)):
            blocking(self._corpus).commit(ops, **options)
        return keys

    async def aadd_documents(
        self,
        documents: list[Document],
        *,
        ids: Sequence[str | None] | None = None,
        acl: Sequence[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """The same."""
        if isinstance(self._corpus, Corpus):
            return await run_in_executor(None, self.add_documents, documents, ids=ids, acl=acl, **options)
        keys = _keys(documents, ids)
        texts = [one.page_content for one in documents]
        vectors = None if self._embedding is None else await self._embedding.aembed_documents(texts)
        for ops in _batches(_puts(documents, keys, vectors, acl)):
            await self._corpus.commit(ops, **options)
        return keys

    def delete(self, ids: list[str] | None = None, **options: Any) -> bool:
        """Delete documents, all that there are if no ids are given; what is not there is passed over.

        With ``fence=True``, returns when no verdict from before can still be acted on.
        """
        corpus = blocking(self._corpus)
        for keys in _batches([one.key for one in corpus.each_document()] if ids is None else ids):
            corpus.delete_many(keys, **options)
        return True

    async def adelete(self, ids: list[str] | None = None, **options: Any) -> bool:
        """The same."""
        if isinstance(self._corpus, Corpus):
            return await run_in_executor(None, self.delete, ids, **options)
        for keys in _batches([one.key async for one in self._corpus.each_document()] if ids is None else ids):
            await self._corpus.delete_many(keys, **options)
        return True

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids that there are."""
        corpus = blocking(self._corpus)
        found = []
        for key in dict.fromkeys(ids):
            with _missing_passed_over():
                found.append(_stored(corpus.document(key)))
        return found

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The same."""
        if isinstance(self._corpus, Corpus):
            return await run_in_executor(None, self.get_by_ids, ids)
        found = []
        for key in dict.fromkeys(ids):
            with _missing_passed_over():
                found.append(_stored(await self._corpus.document(key)))
        return found

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The `k` closest documents; `options` are those of ``Corpus.retrieve``."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    async def asimilarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The same."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """The same with scores, as the corpus's distance has them."""
        if self._embedding is not None:
            return self._by_vector(self._embedding.embed_query(query), k, options)
        return _scored(blocking(self._corpus).retrieve(query, **self._asked(k, options)))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """The same."""
        if isinstance(self._corpus, Corpus):
            return await run_in_executor(None, self.similarity_search_with_score, query, k, **options)
        if self._embedding is not None:
            return await self._aby_vector(await self._embedding.aembed_query(query), k, options)
        return _scored(await self._corpus.retrieve(query, **self._asked(k, options)))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """The `k` documents closest to a vector."""
        return [document for document, _ in self._by_vector(embedding, k, options)]

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Any) -> list[Document]:
        """The same."""
        return [document for document, _ in await self._aby_vector(embedding, k, options)]

    def _by_vector(self, vector: list[float], k: int, options: dict[str, Any]) -> list[tuple[Document, float]]:
        return _scored(blocking(self._corpus).retrieve(vector=vector, **self._asked(k, options)))

    async def _aby_vector(self, vector: list[float], k: int, options: dict[str, Any]) -> list[tuple[Document, float]]:
        if isinstance(self._corpus, Corpus):
            return await run_in_executor(None, self._by_vector, vector, k, options)
        return _scored(await self._corpus.retrieve(vector=vector, **self._asked(k, options)))

    def _asked(self, k: int, options: dict[str, Any]) -> dict[str, Any]:
        return {"k": k, "principals": self._principals} | options

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return self._relevance

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> RagverVectorStore:
        """A store on ``corpus=…`` with these texts in it."""
        store = cls(embedding=embedding, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> RagverVectorStore:
        """The same."""
        store = cls(embedding=embedding, **options)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store


def _cosine_relevance(score: float) -> float:
    return (1.0 + score) / 2.0


def _passages(found: wire.RetrieveResponse) -> list[Document]:
    return [Document(id=hit.chunk_id, page_content=hit.text, metadata=described(found, hit)) for hit in found.hits]


def _scored(found: wire.RetrieveResponse) -> list[tuple[Document, float]]:
    return [
        (Document(id=hit.document.key, page_content=hit.text, metadata=hit.document.metadata), hit.score)
        for hit in found.hits
    ]


def _stored(document: wire.Document) -> Document:
    return Document(id=document.key, page_content=document.text, metadata=document.metadata)


@contextmanager
def _missing_passed_over() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.code != "document_not_found":
            raise


def _keys(documents: Sequence[Document], ids: Sequence[str | None] | None) -> list[str]:
    own = [document.id for document in documents] if ids is None else ids
    if len(own) != len(documents):
        raise ValueError(f"{len(documents)} documents need as many ids, not {len(own)}")
    return [key or str(uuid4()) for key in own]


def _puts(
    documents: Sequence[Document],
    keys: Sequence[str],
    vectors: Sequence[Sequence[float]] | None,
    acl: Sequence[str] | None,
) -> list[wire.Operation]:
    given = {} if acl is None else {"acl": acl}
    chunks: list[dict[str, Any]] = [{"text": document.page_content} for document in documents]
    for chunk, vector in zip(chunks, vectors or (), strict=False):
        chunk["vector"] = vector
    return [
        wire.Put.model_validate({"op": "put", "key": key, "chunks": [chunk], "metadata": document.metadata} | given)
        for document, key, chunk in zip(documents, keys, chunks, strict=True)
    ]


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + COMMIT_DOCUMENTS_MAX] for start in range(0, len(things), COMMIT_DOCUMENTS_MAX))
