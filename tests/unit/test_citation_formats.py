"""Answers as the providers give them turn into the same citations, and can be cut by them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.citations import NOWHERE, Cited, Format, Source, parse
from ragver.errors import InvalidRequest
from tests.support.markdown import MARKDOWN
from tests.support.verdicts import Verdicts

LEAVE = Source(1, "leave.md", "https://intra.example/leave", "Everyone has 30 days of leave. They carry over.")
CAKE = Source(2, "cake.md", "https://intra.example/cake", "Bring cake on your birthday.")
DESK = Source(100042, "file-2dtbBZ", "https://intra.example/desk", "Book a desk by noon.")
DOCUMENTS = [LEAVE, CAKE, DESK]

ANTHROPIC = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "stop_reason": "end_turn",
    "content": [
        {"type": "thinking", "thinking": "Leave, then cake.", "signature": "x"},
        {"type": "text", "text": "According to the handbook, ", "citations": None},
        {
            "type": "text",
            "text": "you have 30 days of leave",
            "citations": [
                {
                    "type": "char_location",
                    "cited_text": "Everyone has 30 days of leave. ",
                    "document_index": 0,
                    "document_title": "Leave",
                    "start_char_index": 0,
                    "end_char_index": 31,
                    "file_id": None,
                }
            ],
        },
        {"type": "text", "text": ". "},
        {
            "type": "text",
            "text": "Bring cake, and book a desk.",
            "citations": [
                {
                    "type": "page_location",
                    "cited_text": "Bring cake",
                    "document_index": 1,
                    "document_title": None,
                    "start_page_number": 1,
                    "end_page_number": 2,
                },
                {
                    "type": "content_block_location",
                    "cited_text": "Book a desk by noon.",
                    "document_index": 2,
                    "document_title": "Desks",
                    "start_block_index": 0,
                    "end_block_index": 1,
                },
            ],
        },
    ],
}

OPENAI_RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "output": [
        {"id": "fs_1", "type": "file_search_call", "status": "completed", "queries": ["desk"], "results": None},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "Book a desk by noon. Leave is 30 days ([intra](https://intra.example/leave?utm_source=openai)).",
                    "annotations": [
                        {"type": "file_citation", "index": 19, "file_id": "file-2dtbBZ", "filename": "desk.pdf"},
                        {
                            "type": "url_citation",
                            "start_index": 39,
                            "end_index": 93,
                            "url": "https://intra.example/leave?utm_source=openai",
                            "title": "Leave",
                        },
                        {"type": "file_path", "file_id": "file-9", "index": 3},
                    ],
                }
            ],
        },
    ],
}

OPENAI_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "Bring cake (intra.example).",
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {
                            "start_index": 11,
                            "end_index": 26,
                            "title": "Cake",
                            "url": "https://intra.example/cake/",
                        },
                    }
                ],
            },
        }
    ],
}

OPENAI_THREAD = {
    "id": "msg_2",
    "object": "thread.message",
    "content": [
        {
            "type": "text",
            "text": {
                "value": "Book a desk【4:0†source】. Yes.",
                "annotations": [
                    {
                        "type": "file_citation",
                        "text": "【4:0†source】",
                        "start_index": 11,
                        "end_index": 23,
                        "file_citation": {"file_id": "file-2dtbBZ"},
                    }
                ],
            },
        }
    ],
}

COHERE = {
    "id": "c14c80c3",
    "finish_reason": "COMPLETE",
    "message": {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm."},
            {"type": "text", "text": "You have 30 days of leave. Bring cake."},
        ],
        "citations": [
            {
                "start": 9,
                "end": 25,
                "text": "30 days of leave",
                "sources": [{"type": "document", "id": "leave.md", "document": {"id": "leave.md", "data": "…"}}],
                "content_index": 1,
                "type": "TEXT_CONTENT",
            },
            {
                "start": 33,
                "end": 37,
                "text": "cake",
                "sources": [{"type": "document", "id": "doc:1", "document": {"id": "doc:1"}}],
                "content_index": 1,
                "type": "TEXT_CONTENT",
            },
            {"start": 0, "end": 2, "text": "Hm", "sources": [], "content_index": 0, "type": "THINKING_CONTENT"},
        ],
    },
}

COHERE_1 = {
    "response_id": "r",
    "text": "Bring cake 🎂 today.",
    "citations": [{"start": 6, "end": 10, "text": "cake", "document_ids": ["cake.md", "doc_2"]}],
}

PERPLEXITY = {
    "id": "p",
    "model": "sonar",
    "object": "chat.completion",
    "citations": ["https://elsewhere.example/", "https://intra.example/cake"],
    "search_results": [
        {"title": "Elsewhere", "url": "https://elsewhere.example/", "date": "2024-01-01"},
        {"title": "Cake", "url": "https://intra.example/cake#birthdays", "date": None},
    ],
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Bring cake[2]. Or pie[1][3]."},
        }
    ],
}


def found(cited: Cited) -> list[tuple[str, tuple[int, ...], str | None]]:
    return [(cited.text[it.start : it.end], it.targets, it.quote) for it in cited.citations]


RECORDED: dict[str, tuple[Format, Any, list[tuple[str, tuple[int, ...], str | None]]]] = {
    "anthropic": (
        Format.ANTHROPIC,
        ANTHROPIC,
        [
            ("you have 30 days of leave", (1,), "Everyone has 30 days of leave. "),
            ("Bring cake, and book a desk.", (2,), "Bring cake"),
            ("Bring cake, and book a desk.", (100042,), "Book a desk by noon."),
        ],
    ),
    "openai response": (
        Format.OPENAI,
        OPENAI_RESPONSE,
        [("n", (100042,), None), ("[intra](https://intra.example/leave?utm_source=openai)", (1,), None)],
    ),
    "openai chat": (Format.OPENAI, OPENAI_CHAT, [("(intra.example)", (2,), None)]),
    "openai thread": (Format.OPENAI, OPENAI_THREAD, [("【4:0†source】", (100042,), None)]),
    "cohere": (Format.COHERE, COHERE, [("30 days of leave", (1,), None), ("cake", (2,), None)]),
    "cohere 1": (Format.COHERE, COHERE_1, [("cake", (2, 100042), None)]),
    "perplexity": (
        Format.PERPLEXITY,
        PERPLEXITY,
        [("[2]", (2,), None), ("[1]", (NOWHERE,), None), ("[3]", (NOWHERE,), None)],
    ),
    "numbered": (
        Format.NUMBERED,
        "Leave [1]. Cake and desks [2-3]. Pie [4]. More [100042]. `x[1]`",
        [("[1]", (1,), None), ("[2-3]", (2, 100042), None), ("[4]", (NOWHERE,), None), ("[100042]", (100042,), None)],
    ),
    "footnotes": (
        Format.FOOTNOTES,
        "Leave[^a]. Cake[^2]. Pie[^pie]. `x[^a]`\n\n[^a]: See leave.md, p. 3.\n[^b]: cake.md\n[^pie]: pie.md",
        [
            ("[^a]", (1,), None),
            ("[^2]", (2,), None),
            ("[^pie]", (NOWHERE,), None),
            ("[^a]", (1,), None),
            ("[^pie]", (NOWHERE,), None),
        ],
    ),
    "chunk ids": (
        Format.CHUNK_IDS,
        "Leave [leave.md]. Both [doc: leave.md; cake.md]. Pie [chunk:pie]. Desk【file-2dtbBZ】. [note] [chunk:100042]",
        [
            ("[leave.md]", (1,), None),
            ("[doc: leave.md; cake.md]", (1, 2), None),
            ("[chunk:pie]", (NOWHERE,), None),
            ("【file-2dtbBZ】", (100042,), None),
            ("[chunk:100042]", (100042,), None),
        ],
    ),
}


def as_objects(answer: Any) -> Any:
    """As an SDK gives it."""
    return json.loads(json.dumps(answer), object_hook=lambda fields: SimpleNamespace(**fields))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers(name: str) -> None:
    """Citations stand where they stand, and name the hits that were given; as JSON and as objects alike."""
    format_, answer, expected = RECORDED[name]
    assert expected == found(parse(format_, answer, DOCUMENTS))
    assert expected == found(parse(format_.value, as_objects(answer), DOCUMENTS))


def test_a_document_of_several_hits_is_told_apart_by_place() -> None:
    """By characters and by blocks; by pages it cannot be."""
    document = [LEAVE, CAKE, DESK]
    end = len(LEAVE.text or "")

    def cites(**place: Any) -> tuple[int, ...]:
        block = {"type": "text", "text": "So it is.", "citations": [{"cited_text": "x", "document_index": 0, **place}]}
        return parse("anthropic", [block], [document]).citations[0].targets

    assert (1,) == cites(type="char_location", start_char_index=0, end_char_index=end)
    assert (1, 2) == cites(type="char_location", start_char_index=end - 1, end_char_index=end + 1)
    assert (2, 100042) == cites(type="content_block_location", start_block_index=1, end_block_index=3)
    assert (1, 2, 100042) == cites(type="page_location", start_page_number=1, end_page_number=2)
    assert (NOWHERE,) == cites(type="char_location", start_char_index=10_000, end_char_index=10_001)


def test_search_results_and_the_web() -> None:
    """The former by their place, the latter by URL."""
    located = {
        "type": "search_result_location",
        "cited_text": "cake",
        "search_result_index": 1,
        "source": "https://intra.example/cake",
        "start_block_index": 0,
        "end_block_index": 1,
        "title": None,
    }
    web = {"type": "web_search_result_location", "cited_text": "x", "url": "https://elsewhere.example", "title": None}
    block = {"type": "text", "text": "So it is.", "citations": [located, web]}
    assert [(2,), (NOWHERE,)] == [it.targets for it in parse("anthropic", [block], DOCUMENTS).citations]


@pytest.mark.parametrize("format_", [Format.ANTHROPIC, Format.OPENAI, Format.COHERE, Format.PERPLEXITY])
@pytest.mark.parametrize("answer", [None, {}, {"choices": []}, {"content": "text"}, 3])
def test_what_is_not_of_the_format_is_refused(format_: Format, answer: Any) -> None:
    """An answer that cannot be read must not look like one that cites nothing."""
    with pytest.raises(InvalidRequest, match="no answer of"):
        parse(format_, answer, DOCUMENTS)


# ── with a verdict ──────────────────────────────────────────────────────────────────────────────────────────


def validated(cited: Cited, *dead: int, quotes: bool = False) -> wire.ValidateResponse:
    request = wire.ValidateRequest(snapshot="token", citations=cited.inputs(quotes=quotes))
    return asyncio.run(Verdicts(*dead)(request))


def test_a_verdict_cuts_what_leans_on_the_dead() -> None:
    """And nothing else."""
    documents = [LEAVE, CAKE, Source(3, "desk.md")]
    cited = parse("anthropic", ANTHROPIC, documents)
    assert cited.text == cited.without(validated(cited))
    assert "Bring cake, and book a desk." == cited.without(validated(cited, 1))
    assert "According to the handbook, you have 30 days of leave." == cited.without(validated(cited, 3))
    assert "" == cited.without(validated(cited, 1, 2))


def test_quotes_are_checked() -> None:
    """What a provider says that it cited must stand in the hit, whose text the validator knows."""
    cited = parse("anthropic", ANTHROPIC, [LEAVE, CAKE, Source(3)])
    assert ["misquoted"] * 3 == [entry.status.value for entry in validated(cited, quotes=True).citations]


def test_an_introduction_takes_no_item_along_that_cites() -> None:
    """Also where citations are no markers."""
    text = "The handbook says:\n- cake\n- leave"
    answer = [
        {"type": "text", "text": text[:18], "citations": [{"type": "page_location", "document_index": 0}]},
        {"type": "text", "text": text[18:26]},
        {"type": "text", "text": text[26:], "citations": [{"type": "page_location", "document_index": 1}]},
    ]
    cited = parse("anthropic", answer, [LEAVE, CAKE])
    assert "- leave" == cited.without(validated(cited, 1))


Claims = list[tuple[str, list[int]]]


def _blocks(claims: Claims) -> tuple[Any, list[str]]:
    texts = [f"{words}. " for words, _ in claims]
    cites = [
        [{"type": "page_location", "document_index": it - 1, "cited_text": "x"} for it in docs] for _, docs in claims
    ]
    return [
        {"type": "text", "text": text, "citations": citations} for text, citations in zip(texts, cites, strict=True)
    ], texts


def _spans(claims: Claims) -> list[tuple[int, int, list[int]]]:
    spans, at = [], 0
    for words, docs in claims:
        spans.append((at, at + len(words), docs))
        at += len(words) + 2
    return spans


def _annotated(claims: Claims) -> tuple[Any, list[str]]:
    texts = [f"{words}. " for words, _ in claims]
    annotations = [
        {"type": "url_citation", "start_index": start, "end_index": end, "url": DOCUMENTS[it - 1].url}
        for start, end, docs in _spans(claims)
        for it in docs
    ]
    part = {"type": "output_text", "text": "".join(texts), "annotations": annotations}
    return {"output": [{"type": "message", "content": [part]}]}, texts


def _cohere(claims: Claims) -> tuple[Any, list[str]]:
    texts = [f"{words}. " for words, _ in claims]
    citations = [
        {"start": start, "end": end, "document_ids": [DOCUMENTS[it - 1].id for it in docs]}
        for start, end, docs in _spans(claims)
        if docs
    ]
    return {"text": "".join(texts), "citations": citations}, texts


def _marked(marker: Callable[[int], str], below: str = "") -> Callable[[Claims], tuple[Any, list[str]]]:
    def build(claims: Claims) -> tuple[Any, list[str]]:
        texts = [f"{words}{''.join(map(marker, docs))}. " for words, docs in claims]
        return "".join(texts) + below, [*texts, below] if below else texts

    return build


def _numbered_beside(claims: Claims) -> tuple[Any, list[str]]:
    text, texts = _marked("[{}]".format)(claims)
    urls = [document.url for document in DOCUMENTS]
    return {"choices": [{"message": {"content": text}}], "citations": urls}, texts


BUILDERS: dict[Format, Callable[[Claims], tuple[Any, list[str]]]] = {
    Format.ANTHROPIC: _blocks,
    Format.OPENAI: _annotated,
    Format.COHERE: _cohere,
    Format.PERPLEXITY: _numbered_beside,
    Format.NUMBERED: _marked("[{}]".format),
    Format.FOOTNOTES: _marked("[^{}]".format),
    Format.CHUNK_IDS: _marked(lambda number: f"[{DOCUMENTS[number - 1].id}]"),
}
CLAIMS = st.lists(
    st.tuples(
        st.sampled_from(["You get 30 days", "Ask HR, e.g. by mail", "休暇 is 😀 leave", "It carries over"]),
        st.lists(st.sampled_from([1, 2]), max_size=2, unique=True),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("format_", Format)
@given(claims=CLAIMS)
def test_cutting_keeps_the_rest_byte_for_byte(format_: Format, claims: Claims) -> None:
    """Whatever the format: of several claims those with the dead hit go, and the others stay as they were."""
    answer, texts = BUILDERS[format_](claims)
    cited = parse(format_, answer, DOCUMENTS)
    assert "".join(texts) == cited.text
    assert all(0 <= it.start < it.end <= len(cited.text) for it in cited.citations)
    assert cited.text == cited.without(validated(cited))
    left = [text for text, (_, docs) in zip(texts, claims, strict=True) if 1 not in docs]
    assert "".join(left).strip() == cited.without(validated(cited, 1)).strip()


@given(text=MARKDOWN, start=st.integers(-3, 60), end=st.integers(-3, 60))
def test_spans_lie_within_the_text_whatever_a_provider_says(text: str, start: int, end: int) -> None:
    """A place that is none stands for the whole."""
    annotation = {"type": "url_citation", "start_index": start, "end_index": end, "url": "https://intra.example/cake"}
    part = {"type": "output_text", "text": text, "annotations": [annotation]}
    cited = parse("openai", {"output": [{"type": "message", "content": [part]}]}, DOCUMENTS)
    (citation,) = cited.citations
    assert 0 <= citation.start <= citation.end <= len(text)
    assert citation.start < citation.end or not text
