"""What follows from citations and facts: statuses, verdicts, and what is left of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.citations import markers, sentences
from ragver.errors import InvalidRequest
from ragver.types import Cause, ChunkId, CitationStatus, Decision, Epoch, Policy, Scope
from ragver.validator import CITED_MAX, ChunkFacts, Question, Verdict, decide
from tests.support.markdown import ANSWERS, MARKDOWN

HITS = (ChunkId(1041), ChunkId(1042), ChunkId(1043))
OUTSIDE = ChunkId(1044)
EVERYONE = ("*",)


def facts(chunk_id: int, **known: Any) -> ChunkFacts:
    """A living chunk that everybody may read, unless told otherwise."""
    alive: dict[str, Any] = {
        "born_epoch": Epoch(2),
        "died_epoch": None,
        "cause": None,
        "document_key": f"{chunk_id}.md",
        "document_alive": True,
        "acl": EVERYONE,
        "version": 3,
        "current_version": 3,
        "text": f"Chunk {chunk_id} says so.",
    }
    return ChunkFacts(chunk_id=ChunkId(chunk_id), **alive | known)


SUPERSEDED = {"died_epoch": Epoch(7), "cause": Cause.SUPERSEDED, "current_version": 4}
DELETED = {"died_epoch": Epoch(7), "cause": Cause.DELETED, "document_alive": False, "current_version": None}
ERASED = DELETED | {"cause": Cause.ERASED, "text": None}
FORBIDDEN = {"acl": ("group:hr",)}


def validate(known: Iterable[ChunkFacts] = (), *, hits: tuple[ChunkId, ...] = HITS, **request: Any) -> Verdict:
    """The verdict on a request, when the hits live and `known` tells about some of them, or others."""
    by_id = {hit: facts(hit) for hit in (*hits, OUTSIDE)} | {fact.chunk_id: fact for fact in known}
    question = Question.of(wire.ValidateRequest(snapshot="token", **request), hits)
    return decide(question, {chunk_id: by_id[chunk_id] for chunk_id in question.wanted if chunk_id in by_id})


def status_of(citation: dict[str, Any], *known: ChunkFacts, **request: Any) -> CitationStatus:
    [verdict] = validate(known, citations=[citation], **request).citations
    return verdict.status


def outcome(verdict: Verdict) -> list[tuple[int | None, str | None, CitationStatus]]:
    return [(citation.ref, citation.chunk_id, citation.status) for citation in verdict.citations]


# ── statuses ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, CitationStatus.LIVE),
        (SUPERSEDED, CitationStatus.SUPERSEDED),
        (DELETED, CitationStatus.DELETED),
        (SUPERSEDED | {"document_alive": False, "current_version": None}, CitationStatus.DELETED),
        (ERASED, CitationStatus.ERASED),
        (FORBIDDEN, CitationStatus.FORBIDDEN),
        (ERASED | FORBIDDEN, CitationStatus.ERASED),
        (DELETED | FORBIDDEN, CitationStatus.FORBIDDEN),
        (SUPERSEDED | FORBIDDEN, CitationStatus.FORBIDDEN),
    ],
)
def test_status_of_a_hit(known: dict[str, Any], expected: CitationStatus) -> None:
    """Erased comes before forbidden, forbidden before dead; by ref and by id alike."""
    assert expected == status_of({"ref": 1}, facts(1041, **known))
    assert expected == status_of({"chunk_id": "1041"}, facts(1041, **known))


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, CitationStatus.NOT_RETRIEVED),
        (DELETED, CitationStatus.DELETED),
        (SUPERSEDED, CitationStatus.SUPERSEDED),
        (FORBIDDEN, CitationStatus.FORBIDDEN),
        (ERASED, CitationStatus.ERASED),
    ],
)
def test_status_of_a_chunk_that_was_not_retrieved(known: dict[str, Any], expected: CitationStatus) -> None:
    """What is worse than not retrieved is said first."""
    assert expected == status_of({"chunk_id": "1044", "quote": "no such words"}, facts(OUTSIDE, **known))


@pytest.mark.parametrize("ref", [0, 4, 1_000, 1_001, 1_041, 2**53])
def test_a_ref_past_the_hits_is_made_up(ref: int) -> None:
    """Refs count from 1 to the number of hits; a larger one is no chunk id when it is given as a ref."""
    verdict = validate(citations=[{"ref": ref}])
    assert [(ref, None, CitationStatus.UNKNOWN)] == outcome(verdict)


@pytest.mark.parametrize("chunk_id", ["0", "1", "1045", "9" * 19])
def test_a_chunk_that_nobody_knows_is_made_up(chunk_id: str) -> None:
    """The id is told back."""
    assert [(None, chunk_id, CitationStatus.UNKNOWN)] == outcome(validate(citations=[{"chunk_id": chunk_id}]))


def test_a_hit_that_the_ledger_does_not_know_is_unknown() -> None:
    """It fails closed, and does not pretend to know a chunk."""
    question = Question.of(wire.ValidateRequest(snapshot="token", citations=[wire.CitationInput(ref=1)]), HITS)
    assert [(1, None, CitationStatus.UNKNOWN)] == outcome(decide(question, {}))


@pytest.mark.parametrize("number", ["9" * 20, "9" * 6_000, "1-1000", "1001-9999999"])
def test_an_unreadable_marker_is_unknown(number: str) -> None:
    """A number or range beyond measure cannot be checked, so it cannot pass."""
    verdict = validate(answer=f"So it is [{number}].")
    assert (None, None, CitationStatus.UNKNOWN) in outcome(verdict)
    assert Decision.REJECT is verdict.decision


def test_ids_that_no_ledger_can_hold_are_not_looked_up() -> None:
    """They would not fit its type."""
    request = wire.ValidateRequest(snapshot="token", answer=f"[{2**63 - 1}] [{2**63}] [{'9' * 30}]")
    assert [2**63 - 1] == Question.of(request, HITS).wanted


@pytest.mark.parametrize(
    ("quote", "text", "expected"),
    [
        ("1041 says", "Chunk 1041 says so.", CitationStatus.LIVE),
        ("1042 says", "Chunk 1041 says so.", CitationStatus.MISQUOTED),
        (" \u200b", "Chunk 1041 says so.", CitationStatus.MISQUOTED),
        ("1041 says", None, CitationStatus.MISQUOTED),
        ("1041 says", "", CitationStatus.MISQUOTED),
    ],
)
def test_quotes_are_looked_for_in_the_text(quote: str, text: str | None, expected: CitationStatus) -> None:
    """A quote that cannot be found is not confirmed, for whatever reason."""
    assert expected == status_of({"ref": 1, "quote": quote}, facts(1041, text=text))


@pytest.mark.parametrize(
    ("principals", "acl", "expected"),
    [
        ([], ("*",), CitationStatus.LIVE),
        ([], ("group:hr",), CitationStatus.FORBIDDEN),
        (["group:hr"], ("group:hr", "user:ada"), CitationStatus.LIVE),
        (["group:it"], ("group:hr", "*"), CitationStatus.LIVE),
        (["group:it"], ("group:hr",), CitationStatus.FORBIDDEN),
        (["*"], ("group:hr",), CitationStatus.FORBIDDEN),
        (["group:hr"], (), CitationStatus.FORBIDDEN),
    ],
)
def test_access(principals: list[str], acl: tuple[str, ...], expected: CitationStatus) -> None:
    """A reader sees what lists one of its labels, or everybody."""
    assert expected == status_of({"ref": 1}, facts(1041, acl=acl), principals=principals)


# ── what is told of each ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("known", "version", "died_epoch", "superseded_by"),
    [({}, 3, None, None), (SUPERSEDED, 3, 7, 4), (DELETED, 3, 7, None), (ERASED, 3, 7, None)],
)
def test_what_a_verdict_tells(
    known: dict[str, Any], version: int, died_epoch: int | None, superseded_by: int | None
) -> None:
    """Whoever may read the document learns where the cited text was, and what replaced it."""
    [told] = validate([facts(1041, **known)], citations=[{"ref": 1}]).citations
    assert ("1041.md", version, died_epoch, superseded_by) == (
        told.document_key,
        told.version,
        told.died_epoch,
        told.superseded_by,
    )


@pytest.mark.parametrize("known", [FORBIDDEN, DELETED | FORBIDDEN, SUPERSEDED | FORBIDDEN, ERASED | FORBIDDEN])
def test_what_a_verdict_keeps_to_itself(known: dict[str, Any]) -> None:
    """Of a document that the reader may not see, nothing is told, not even that it died."""
    [told] = validate([facts(1041, **known)], citations=[{"ref": 1, "quote": "x"}]).citations
    assert (None, None, None, None) == (told.document_key, told.version, told.died_epoch, told.superseded_by)
    assert "1041.md" not in told.detail


def test_every_status_has_a_sentence_for_people() -> None:
    """One sentence that names the document where it may be named."""
    known = [facts(1041, **SUPERSEDED), facts(1042, **FORBIDDEN), facts(1043, **ERASED), facts(1045, **DELETED)]
    cited = [{"ref": 0}, {"ref": 1}, {"ref": 2}, {"ref": 3}, {"chunk_id": "1044"}, {"chunk_id": "1045"}, {"ref": 4}]
    cited += [{"ref": 4, "quote": "x"}, {"chunk_id": "1046"}]
    hits = (*HITS, ChunkId(1047))
    told = validate([*known, facts(1047)], hits=hits, citations=cited).citations
    assert set(CitationStatus) == {citation.status for citation in told}
    details = [citation.detail for citation in told]
    assert len(set(details)) == len(details)
    for citation in told:
        assert citation.detail.endswith(".")
        assert citation.document_key is None or citation.status is CitationStatus.ERASED or ".md" in citation.detail


# ── what is cited ───────────────────────────────────────────────────────────────────────────────────────────


def test_each_chunk_is_reported_once_in_order_of_appearance() -> None:
    """A ref and an id that mean the same chunk are one citation; explicit ones come first."""
    verdict = validate(answer="B [2]. A [1041, 1]. B [1042].", citations=[{"ref": 3}, {"chunk_id": "1043"}])
    assert [
        (3, "1043", CitationStatus.LIVE),
        (2, "1042", CitationStatus.LIVE),
        (1, "1041", CitationStatus.LIVE),
    ] == outcome(verdict)


def test_each_quote_is_reported_once() -> None:
    """Different quotes of a chunk are different citations, and a marker adds none to them."""
    cited = [{"ref": 1, "quote": quote} for quote in ("so", "not so", "so")]
    verdict = validate(answer="A [1].", citations=cited)
    assert [CitationStatus.LIVE, CitationStatus.MISQUOTED] == [citation.status for citation in verdict.citations]


def test_scope_context_adds_the_other_hits() -> None:
    """In the order of their refs, after what is cited, and none twice."""
    verdict = validate([facts(1043, **DELETED)], answer="B [2].", scope=Scope.CONTEXT)
    assert [
        (2, "1042", CitationStatus.LIVE),
        (1, "1041", CitationStatus.LIVE),
        (3, "1043", CitationStatus.DELETED),
    ] == outcome(verdict)
    assert Decision.REJECT is verdict.decision


def test_scope_cited_leaves_other_hits_alone() -> None:
    """What is not cited may be dead."""
    verdict = validate([facts(1043, **DELETED)], answer="B [2].")
    assert Decision.PASS is verdict.decision


def test_wanted_names_each_chunk_once() -> None:
    """Refs resolved, and nothing for refs that stand for nothing."""
    request = wire.ValidateRequest(
        snapshot="t", answer="[2] [9] [1044]", citations=[wire.CitationInput(chunk_id="1042")]
    )
    assert [1042, 1044] == Question.of(request, HITS).wanted


def test_an_answer_that_cites_beyond_all_measure_is_refused() -> None:
    """A verdict on so many is no verdict anybody reads; and each costs a look-up."""
    Question.of(wire.ValidateRequest(snapshot="t", answer="[1]" * CITED_MAX), HITS)
    with pytest.raises(InvalidRequest, match="in parts"):
        Question.of(wire.ValidateRequest(snapshot="t", answer="[1]" * (CITED_MAX + 1)), HITS)


# ── policies ────────────────────────────────────────────────────────────────────────────────────────────────

ANSWER = "First [1]. Second [2]."


@pytest.mark.parametrize(
    ("policy", "known", "expected", "left"),
    [
        (Policy.STRICT, {}, Decision.PASS, None),
        (Policy.STRICT, SUPERSEDED, Decision.REJECT, None),
        (Policy.FLAG, {}, Decision.PASS, None),
        (Policy.FLAG, SUPERSEDED, Decision.FLAG, None),
        (Policy.FLAG, DELETED, Decision.FLAG, None),
        (Policy.FLAG, ERASED, Decision.REJECT, None),
        (Policy.FLAG, FORBIDDEN, Decision.REJECT, None),
        (Policy.REDACT, {}, Decision.PASS, ANSWER),
        (Policy.REDACT, SUPERSEDED, Decision.FLAG, "Second [2]."),
        (Policy.REDACT, ERASED, Decision.FLAG, "Second [2]."),
        (Policy.REDACT, FORBIDDEN, Decision.FLAG, "Second [2]."),
    ],
)
def test_policies(policy: Policy, known: dict[str, Any], expected: Decision, left: str | None) -> None:
    """What one bad citation does to an answer."""
    verdict = validate([facts(1041, **known)], answer=ANSWER, policy=policy)
    assert (expected, left) == (verdict.decision, verdict.answer)


def test_nothing_cited_is_nothing_wrong() -> None:
    """Whether an answer should cite at all is not asked here."""
    assert Decision.PASS is validate(answer="Hello.").decision
    assert Decision.PASS is validate(citations=[]).decision


@pytest.mark.parametrize(
    "request_",
    [
        {"answer": "First [1]."},
        {"answer": "# Leave\n\nFirst [1].\n"},
        {"citations": [{"ref": 1}]},
        {"citations": [{"ref": 1}], "answer": "Second [2]."},
        {"citations": [{"ref": 1}], "answer": "Second [2].\n\n[^1]: leave.md"},
        {"scope": Scope.CONTEXT, "answer": "Second [2]."},
        {"scope": Scope.CONTEXT},
    ],
)
def test_redact_rejects_what_it_cannot_mend(request_: dict[str, Any]) -> None:
    """Nothing would be left, or no marker shows what to cut."""
    verdict = validate([facts(1041, **DELETED)], policy=Policy.REDACT, **request_)
    assert (Decision.REJECT, None) == (verdict.decision, verdict.answer)


def test_redact_cuts_where_a_misquoted_chunk_is_marked() -> None:
    """The explicit citation carries the quote, the marker of the same chunk says where it is."""
    verdict = validate(answer=ANSWER, citations=[{"ref": 2, "quote": "made up"}], policy=Policy.REDACT)
    assert (Decision.FLAG, "First [1].") == (verdict.decision, verdict.answer)


def test_redact_cuts_footnotes_with_their_references() -> None:
    """A definition may well quote what is gone."""
    answer = "First[^1]. Second[^2].\n\n[^1]: “Old words”, 1041.md\n[^2]: 1042.md"
    verdict = validate([facts(1041, **DELETED)], answer=answer, policy=Policy.REDACT)
    assert "Second[^2].\n\n[^2]: 1042.md" == verdict.answer


def test_redact_rejects_when_cutting_brings_forth_another_citation() -> None:
    """What was a line of code is a citation once the sentence before a fence is gone."""
    answer = "Gone [1]. ``` opens\n\n```\ncode [9]\n```\n\nGood [2]."
    assert [1, 2] == [target for marker in markers.parse(answer) for target in marker.targets]
    verdict = validate([facts(1041, **DELETED)], answer=answer, policy=Policy.REDACT)
    assert (Decision.REJECT, None) == (verdict.decision, verdict.answer)


# ── whatever the facts ──────────────────────────────────────────────────────────────────────────────────────

_ids = st.sampled_from([*HITS, OUTSIDE, ChunkId(1045)])
_facts = st.builds(
    ChunkFacts,
    chunk_id=_ids,
    born_epoch=st.just(Epoch(1)),
    died_epoch=st.none() | st.just(Epoch(5)),
    cause=st.none() | st.sampled_from(Cause),
    document_key=st.just("leave.md"),
    document_alive=st.booleans(),
    acl=st.sampled_from([("*",), ("a",), ("b",), ("a", "b"), ()]),
    version=st.just(1),
    current_version=st.none() | st.just(2),
    text=st.none() | st.just("You get 30 days."),
)
_known = st.lists(_facts, max_size=5).map(lambda known: {fact.chunk_id: fact for fact in known})
_citation = st.builds(
    dict[str, Any],
    st.builds(lambda ref: [("ref", ref)], st.integers(0, 5)) | st.builds(lambda id_: [("chunk_id", str(id_))], _ids),
    quote=st.none() | st.sampled_from(["30 days", "31 days"]),
)
_requests = st.builds(
    wire.ValidateRequest,
    snapshot=st.just("token"),
    citations=st.lists(_citation, max_size=3).map(lambda cited: [wire.CitationInput(**one) for one in cited]),
    answer=st.none() | ANSWERS | MARKDOWN,
    policy=st.sampled_from(Policy),
    scope=st.sampled_from(Scope),
    principals=st.lists(st.sampled_from(["a", "c"]), max_size=2),
)


@given(_requests, _known)
@pytest.mark.guarantee(6)
def test_g06_no_dead_forbidden_or_erased_chunk_is_live(
    request_: wire.ValidateRequest, known: dict[ChunkId, ChunkFacts]
) -> None:
    """Whatever the facts, also where they contradict each other: one sign of death is enough."""
    for citation in decide(Question.of(request_, HITS), known).citations:
        if citation.status is CitationStatus.LIVE:
            assert citation.chunk_id is not None
            fact = known[ChunkId(int(citation.chunk_id))]
            assert (None, None, True) == (fact.died_epoch, fact.cause, fact.document_alive)
            assert {"*", *request_.principals} & set(fact.acl)
            assert fact.chunk_id in HITS


@given(_requests, _known)
def test_a_pass_means_that_all_is_live(request_: wire.ValidateRequest, known: dict[ChunkId, ChunkFacts]) -> None:
    """Under every policy; and what is all live passes. Strict knows nothing in between."""
    verdict = decide(Question.of(request_, HITS), known)
    all_live = all(citation.status is CitationStatus.LIVE for citation in verdict.citations)
    assert all_live == (verdict.decision is Decision.PASS)
    assert not (request_.policy is Policy.STRICT and verdict.decision is Decision.FLAG)


@given(_requests, _known)
def test_nothing_is_told_of_a_forbidden_document(
    request_: wire.ValidateRequest, known: dict[ChunkId, ChunkFacts]
) -> None:
    """Whatever its status."""
    labels = {"*", *request_.principals}
    for citation in decide(Question.of(request_, HITS), known).citations:
        fact = known.get(ChunkId(int(citation.chunk_id))) if citation.chunk_id is not None else None
        if fact is None or labels.isdisjoint(fact.acl):
            told = (citation.document_key, citation.version, citation.died_epoch, citation.superseded_by)
            assert (None, None, None, None) == told


@given(_requests, _known)
def test_a_redacted_answer_cites_only_what_lives(
    request_: wire.ValidateRequest, known: dict[ChunkId, ChunkFacts]
) -> None:
    """Validated again by the same facts, it passes."""
    request_ = request_.model_copy(update={"policy": Policy.REDACT})
    verdict = decide(Question.of(request_, HITS), known)
    assert (verdict.answer is not None) == (verdict.decision is not Decision.REJECT and request_.answer is not None)
    if verdict.answer is not None:
        again = wire.ValidateRequest(snapshot="token", answer=verdict.answer, principals=request_.principals)
        assert Decision.PASS is decide(Question.of(again, HITS), known).decision


@given(ANSWERS, _known)
def test_redaction_never_changes_a_live_sentence(answer: str, known: dict[ChunkId, ChunkFacts]) -> None:
    """Every unit that cites, and only what lives, is in the answer that is left."""
    question = Question.of(wire.ValidateRequest(snapshot="token", answer=answer, policy=Policy.REDACT), HITS)
    verdict = decide(question, known)
    bad = {
        span
        for citation, told in zip(question.citations, verdict.citations, strict=True)
        if told.status is not CitationStatus.LIVE
        for span in citation.spans
    }
    for unit in sentences.split(answer):
        if verdict.answer and unit.cites and not any(unit.start <= start < unit.end for start, _ in bad):
            assert answer[unit.start : unit.end].strip() in verdict.answer
