"""The text in the chunks of the models' SDKs. Shapes recorded by hand from the SDKs' own types."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from ragver.citations import Source
from ragver.errors import ModelFailed
from ragver.gate import AsyncGatedStream, Released
from ragver.gate.chunks import text_of
from ragver.gate.marking import Marking
from ragver.types import Policy
from tests.support.verdicts import Verdicts


def _choice(index: int = 0, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": list(choices), **more}


OPENAI_CHAT = [
    _chunk(_choice(role="assistant", content="", refusal=None)),
    _chunk(_choice(content="You get 30 days")),
    _chunk(_choice(content=" [1].")),
    _chunk(_choice(finish_reason="stop")),
    _chunk(usage={"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}),
]
OPENAI_CHAT_HELPER = [
    {"type": "chunk", "chunk": OPENAI_CHAT[1], "snapshot": {"choices": []}},
    {"type": "content.delta", "delta": "You get 30 days", "snapshot": "You get 30 days", "parsed": None},
    {"type": "content.delta", "delta": " [1].", "snapshot": "You get 30 days [1].", "parsed": None},
    {"type": "content.done", "content": "You get 30 days [1].", "parsed": None},
]
OPENAI_RESPONSES = [
    {"type": "response.created", "response": {"id": "resp_1", "error": None}, "sequence_number": 0},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
    {"type": "response.content_part.added", "content_index": 0, "part": {"type": "output_text", "text": ""}},
    {"type": "response.reasoning_summary_text.delta", "delta": "Hm.", "item_id": "rs_1"},
    {"type": "response.output_text.delta", "delta": "You get 30 days", "item_id": "msg_1", "logprobs": []},
    {"type": "response.output_text.delta", "delta": " [1].", "item_id": "msg_1", "logprobs": []},
    {"type": "response.output_text.annotation.added", "annotation": {"type": "file_citation", "file_id": "f"}},
    {"type": "response.output_text.done", "text": "You get 30 days [1].", "item_id": "msg_1"},
    {"type": "response.completed", "response": {"id": "resp_1", "error": None}},
]
ANTHROPIC = [
    {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "You get 30 days"}},
    {"type": "text", "text": "You get 30 days", "snapshot": "You get 30 days"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"cited_text": "x"}}},
    {"type": "citation", "citation": {"cited_text": "x"}, "snapshot": []},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " [1]."}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]
LANGCHAIN = [
    {"type": "AIMessageChunk", "content": "", "additional_kwargs": {}},
    {"type": "AIMessageChunk", "content": "You get 30"},
    {"type": "AIMessageChunk", "content": [{"type": "text", "text": " days", "index": 0}, " [1]."]},
    {"type": "AIMessageChunk", "content": [{"type": "tool_use", "name": "f", "input": {}}]},
    {"type": "AIMessageChunk", "content": [], "usage_metadata": {"output_tokens": 9}},
]
STREAMS: dict[str, list[Any]] = {
    "strings": ["You get 30 days", "", " [1]."],
    "openai chat": OPENAI_CHAT,
    "openai chat helper": OPENAI_CHAT_HELPER,
    "openai responses": OPENAI_RESPONSES,
    "anthropic": ANTHROPIC,
    "langchain": LANGCHAIN,
}


def as_objects(chunks: list[Any]) -> list[Any]:
    """As the SDKs give them."""
    return json.loads(json.dumps(chunks), object_hook=lambda fields: SimpleNamespace(**fields))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", STREAMS)
def test_the_text_of_a_stream_is_found_once(name: str) -> None:
    """In parsed JSON, and in objects; what repeats it and what is about something else adds nothing."""
    assert "You get 30 days [1]." == "".join(map(text_of, STREAMS[name]))
    if name != "langchain":  # whose content blocks are mappings in either case
        assert "You get 30 days [1]." == "".join(map(text_of, as_objects(STREAMS[name])))


def test_a_refusal_is_text() -> None:
    assert "No." == text_of(_chunk(_choice(refusal="No.")))
    assert "No." == text_of({"type": "response.refusal.delta", "delta": "No."})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "error", "code": "x", "message": "Overloaded", "param": None},
        {"type": "response.failed", "response": {"error": {"code": "x", "message": "Overloaded"}}},
    ],
)
def test_a_failure_in_the_stream_is_an_error(event: dict[str, Any]) -> None:
    with pytest.raises(ModelFailed, match="Overloaded"):
        text_of(event)


@pytest.mark.parametrize("chunk", [b"bytes", 3, None, {}, {"type": "something.new"}, object(), ("text", {})])
def test_text_does_not_get_lost_in_unknown_shapes(chunk: object) -> None:
    with pytest.raises(TypeError, match="iterator of strings"):
        text_of(chunk)


def test_several_choices_are_not_mixed() -> None:
    with pytest.raises(TypeError, match="n=1"):
        text_of(_chunk(_choice(content="a"), _choice(1, content="b")))


class SdkStream:
    """What an SDK returns: iterated by a generator of its own, and closed by itself."""

    def __init__(self, chunks: list[Any]) -> None:
        self._chunks = chunks
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        for chunk in self._chunks:
            yield chunk

    async def close(self) -> None:
        self.closed = True


async def test_an_sdks_stream_goes_through_the_gate_and_is_closed() -> None:
    stream = SdkStream(as_objects(ANTHROPIC))
    gated = AsyncGatedStream(Verdicts(), "token", stream)
    assert "You get 30 days [1]." == "".join([piece async for piece in gated if isinstance(piece, Released)])
    assert stream.closed


# ── citations beside the text ───────────────────────────────────────────────────────────────────────────────


def _block(index: int, text: str, *documents: int) -> list[dict[str, Any]]:
    cites = [{"type": "page_location", "document_index": number, "cited_text": "x"} for number in documents]
    first, rest = text[: len(text) // 2], text[len(text) // 2 :]
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": first}},
        *(
            {"type": "content_block_delta", "index": index, "delta": {"type": "citations_delta", "citation": cite}}
            for cite in cites
        ),
        {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": rest}},
        {"type": "content_block_stop", "index": index},
    ]


CITED_BESIDE = [
    *_block(0, "You get "),
    *_block(1, "30 days of leave", 0),
    *_block(2, ". They carry over.\n", 1, 0, 1),
    *_block(3, "Bring pie. ", 7),
    *_block(4, "That is all. \n"),
]


def test_citations_beside_the_text_become_markers_in_it() -> None:
    """At the end of the block that they support; one that points to nothing given is told apart."""
    for chunks in (CITED_BESIDE, as_objects(CITED_BESIDE)):
        marking = Marking([Source(1), Source(2)])
        text = "".join(map(marking.read, chunks)) + marking.end()
        assert "You get 30 days of leave [1]. They carry over. [2][1]\nBring pie. [0] That is all. \n" == text


async def test_claims_cited_beside_the_text_are_held_to_their_citations() -> None:
    """Without the documents they would be held to the context."""
    documents = [Source(1), Source(2)]
    claims = CITED_BESIDE[:15]
    good = AsyncGatedStream(Verdicts(), "token", claims, documents=documents)
    assert "You get 30 days of leave [1]. They carry over. [2][1]\n" == "".join([piece async for piece in good])
    assert good.end is not None
    assert [1, 2] == [entry.ref for entry in good.end.verdict.citations]
    bad = AsyncGatedStream(Verdicts(), "token", CITED_BESIDE, documents=documents, policy=Policy.REDACT)
    assert "Bring pie" not in "".join([piece async for piece in bad])
