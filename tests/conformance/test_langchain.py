"""LangChain's own suites for vector stores and retrievers, as they are published, on both faces of the client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import ragver
from ragver import wire

pytest.importorskip("langchain_tests", reason="LangChain's suites need the extra: pip install 'ragver[langchain]'")

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE

from ragver.integrations import langchain
from ragver.integrations.langchain import RagverRetriever, RagverVectorStore
from ragver.integrations.passages import METADATA, Origin
from ragver.types import Decision
from tests.support.server import Server

BROUGHT = wire.Embedding(provider="external", dimensions=EMBEDDING_SIZE)


@pytest.fixture(scope="module")
def client(shared_server: Server) -> Iterator[ragver.Client]:
    with ragver.Client(shared_server.url) as opened:
        yield opened


class TestVectorStore(VectorStoreIntegrationTests):
    """Through the synchronous client; asynchronous calls in a thread."""

    @pytest.fixture
    def vectorstore(self, client: ragver.Client) -> Iterator[VectorStore]:
        client.create_corpus("standard", embedding=BROUGHT)
        yield RagverVectorStore(client["standard"], self.get_embeddings())
        client.delete_corpus("standard")


class TestAsyncVectorStore(VectorStoreIntegrationTests):
    """Through the asynchronous client."""

    @pytest.fixture
    def vectorstore(self, shared_server: Server, client: ragver.Client) -> Iterator[VectorStore]:
        # The suite wants the same fixture for both kinds of tests, so no connection may outlive a test's event loop.
        passing = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))
        corpus = ragver.AsyncClient(shared_server.url, transport=passing)["standard"]
        client.create_corpus("standard", embedding=BROUGHT)
        yield RagverVectorStore(corpus, self.get_embeddings())
        client.delete_corpus("standard")

    @property
    def has_sync(self) -> bool:
        return False


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def handbook(self, client: ragver.Client) -> Iterator[None]:
        client.create_corpus("handbook")
        for number in range(5):
            client["handbook"].put(f"leave-{number}.md", f"Leave, part {number}: everyone has {20 + number} days.")
        self.corpus = client["handbook"]
        yield
        client.delete_corpus("handbook")

    @property
    def retriever_constructor(self) -> type[RagverRetriever]:
        return RagverRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"corpus": self.corpus}

    @property
    def retriever_query_example(self) -> str:
        return "How many days of leave?"


def test_a_retrievers_documents_can_be_validated(client: ragver.Client) -> None:
    """What a model writes from them is checked by the same markers."""
    client.create_corpus("validated")
    corpus = client["validated"]
    corpus.put("leave.md", "Everyone has 30 days of leave.", title="Leave", metadata={"team": "hr"})
    (document,) = RagverRetriever(corpus=corpus, k=1).invoke("How many days of leave?")
    origin = Origin.model_validate(document.metadata[METADATA])

    assert {"title": "Leave", "source": "leave.md", "team": "hr"} == {
        name: value for name, value in document.metadata.items() if name != METADATA
    }
    assert Decision.PASS is corpus.validate(origin.snapshot, answer=f"30 days [{origin.ref}].").verdict
    RagverVectorStore(corpus).delete(["leave.md"])
    assert Decision.REJECT is corpus.validate(origin.snapshot, answer=f"30 days [{origin.ref}].").verdict


def test_a_store_without_embeddings_lets_the_corpus_embed(client: ragver.Client) -> None:
    client.create_corpus("embedding")
    store = RagverVectorStore(client["embedding"])
    ids = store.add_texts(["30 days of leave", "the canteen opens at noon"], [{"n": 1}, {"n": 2}])

    ((best, relevance),) = store.similarity_search_with_relevance_scores("when does the canteen open?", k=1)
    assert (ids[1], {"n": 2}) == (best.id, best.metadata)
    assert 0.5 < relevance < 1.0


def test_a_reader_sees_what_is_theirs(client: ragver.Client) -> None:
    client.create_corpus("private")
    RagverVectorStore(client["private"]).add_documents([Document(page_content="salaries")], acl=["group:hr"])

    assert [] == RagverVectorStore(client["private"]).similarity_search("salaries")
    assert 1 == len(RagverVectorStore(client["private"], principals=["group:hr"]).similarity_search("salaries"))
    assert 1 == len(RagverRetriever(corpus=client["private"], principals=["group:hr"]).invoke("salaries"))


def test_everything_can_be_deleted_in_parts(client: ragver.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langchain, "COMMIT_DOCUMENTS_MAX", 2)
    client.create_corpus("emptied")
    store = RagverVectorStore(client["emptied"])
    store.add_texts(["one", "two", "three"])
    store.delete()

    assert [] == list(client["emptied"].each_document())
    assert 4 == client["emptied"].describe().head


async def test_an_asynchronous_corpus_serves_no_synchronous_calls() -> None:
    async with ragver.AsyncClient() as client:
        with pytest.raises(TypeError, match="asynchronous"):
            RagverVectorStore(client["handbook"]).similarity_search("leave")
