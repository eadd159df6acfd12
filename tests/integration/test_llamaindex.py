"""The LlamaIndex retriever, and the postprocessor that drops what has died since."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ragver

pytest.importorskip("llama_index.core", reason="LlamaIndex needs the extra: pip install 'ragver[llamaindex]'")

from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from ragver import wire
from ragver.integrations.llamaindex import LiveNodes, RagverRetriever
from ragver.integrations.passages import METADATA, Origin
from ragver.types import CitationStatus, Decision
from tests.support.server import Server

QUESTION = "How many days of leave?"


@pytest.fixture
def corpus(shared_server: Server) -> Iterator[ragver.Corpus]:
    with ragver.Client(shared_server.url) as client:
        client.create_corpus("handbook", verdict_ttl_ms=50)
        corpus = client["handbook"]
        corpus.put("leave.md", "Everyone has 30 days of leave.", title="Leave")
        corpus.put("unpaid.md", "Unpaid leave is for the asking.")
        corpus.put("pay.md", "Leave is paid by grade.", acl=["group:hr"])
        yield corpus
        client.delete_corpus("handbook")


def keys(nodes: list[NodeWithScore]) -> set[str]:
    return {node.node.metadata[METADATA]["key"] for node in nodes}


def test_nodes_carry_what_validation_needs_and_show_models_nothing_of_it(corpus: ragver.Corpus) -> None:
    nodes = RagverRetriever(corpus, k=3).retrieve(QUESTION)
    leave = next(node for node in nodes if node.node.metadata["source"] == "leave.md")
    origin = Origin.model_validate(leave.node.metadata[METADATA])

    assert {"leave.md", "unpaid.md"} == keys(nodes)
    assert leave.node.node_id == origin.chunk_id
    assert "Leave" == leave.node.metadata["title"]
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert origin.snapshot not in leave.node.get_content(mode)
    assert Decision.PASS is corpus.validate(origin.snapshot, answer=f"30 days [{origin.ref}].").verdict


def test_dead_nodes_are_dropped_with_the_reason(corpus: ragver.Corpus) -> None:
    """From two retrievals at once: one before and one after a commit."""
    old = RagverRetriever(corpus, principals=["group:hr"]).retrieve(QUESTION)
    corpus.put("new.md", "Leave for parents is 20 days.")
    new = RagverRetriever(corpus, principals=["group:hr"]).retrieve(QUESTION)
    corpus.put("leave.md", "Everyone has 28 days of leave.")
    corpus.delete("unpaid.md")
    corpus.commit([wire.SetAcl(op="set_acl", key="pay.md", acl=["group:board"])])

    reasons: list[tuple[str, CitationStatus, str]] = []
    live = LiveNodes(
        corpus=corpus,
        principals=["group:hr"],
        dropped=lambda node, word: reasons.append((node.node.metadata["source"], word.status, word.detail)),
    )
    kept = live.postprocess_nodes(old + new, query_str=QUESTION)

    assert {"leave.md", "unpaid.md", "pay.md"} == keys(old)
    assert ["new.md"] == [node.node.metadata["source"] for node in kept]
    assert {
        ("leave.md", CitationStatus.SUPERSEDED),
        ("unpaid.md", CitationStatus.DELETED),
        ("pay.md", CitationStatus.FORBIDDEN),
    } == {(source, status) for source, status, _ in reasons}
    assert 6 == len(reasons)
    assert all(detail for _, _, detail in reasons)


async def test_all_of_it_works_asynchronously_too(shared_server: Server, corpus: ragver.Corpus) -> None:
    async with ragver.AsyncClient(shared_server.url) as client:
        retrieved = await RagverRetriever(client["handbook"]).aretrieve(QUESTION)
        await client["handbook"].delete("unpaid.md")
        kept = await LiveNodes(corpus=client["handbook"]).apostprocess_nodes(retrieved)
        with pytest.raises(TypeError, match="asynchronous"):
            LiveNodes(corpus=client["handbook"]).postprocess_nodes(retrieved)

    assert {"leave.md"} == keys(kept)
    assert kept == await LiveNodes(corpus=corpus).apostprocess_nodes(retrieved)
    assert {"leave.md"} == keys(await RagverRetriever(corpus).aretrieve(QueryBundle(QUESTION)))


def test_what_cannot_be_checked_is_not_let_through(corpus: ragver.Corpus) -> None:
    """Neither a node from elsewhere, nor one of a snapshot that this server never gave."""
    nodes = RagverRetriever(corpus).retrieve(QUESTION)
    foreign = NodeWithScore(node=TextNode(text="from elsewhere"), score=1.0)
    with pytest.raises(ValueError, match="does not come from ragver"):
        LiveNodes(corpus=corpus).postprocess_nodes([*nodes, foreign])

    nodes[0].node.metadata[METADATA]["snapshot"] = "forged"
    with pytest.raises(ragver.ApiError) as caught:
        LiveNodes(corpus=corpus).postprocess_nodes(nodes)
    assert "snapshot_invalid" == caught.value.code
