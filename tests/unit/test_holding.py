"""What a gate lets out agrees with what the validator makes of the whole answer, however the text arrives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.citations import markers
from ragver.citations.cutting import cut
from ragver.errors import InvalidRequest, VerdictIncomplete
from ragver.gate.events import Cut, Flag, Retraction
from ragver.gate.holding import Holding, Judgement, Terms
from ragver.types import CitationStatus, Decision, Policy, Scope
from tests.support.markdown import ANSWERS, MARKDOWN
from tests.support.verdicts import NOW

Bad = dict[int, CitationStatus]
DELETED: Bad = {1: CitationStatus.DELETED}


def told(request: wire.ValidateRequest, bad: Bad, uncited: Sequence[int] = ()) -> wire.ValidateResponse:
    """A verdict on what was asked for, where `bad` says what is not live; `uncited` are dead hits beside."""
    cited = [citation.ref or int(citation.chunk_id or 0) for citation in request.citations or ()]
    statuses = {target: bad.get(target, CitationStatus.LIVE) for target in cited}
    statuses |= {ref: CitationStatus.DELETED for ref in uncited if request.scope is Scope.CONTEXT}
    is_bad = set(statuses.values()) - {CitationStatus.LIVE}
    rejects = is_bad if request.policy is Policy.STRICT else is_bad & {CitationStatus.ERASED, CitationStatus.FORBIDDEN}
    return wire.ValidateResponse(
        verdict=Decision.REJECT if rejects else Decision.FLAG if is_bad else Decision.PASS,
        epoch=1,
        snapshot_epoch=1,
        checked_at=NOW,
        valid_for_ms=1,
        citations=[_told(target, status) for target, status in statuses.items()],
    )


def _told(target: int, status: CitationStatus) -> wire.CitationVerdict:
    ref, chunk_id = (target, None) if target <= 1_000 else (None, str(target))
    return wire.CitationVerdict(
        ref=ref,
        chunk_id=chunk_id,
        status=status,
        document_key=None,
        version=None,
        died_epoch=None,
        superseded_by=None,
        detail=f"[{target}] is {status}",
    )


def holding(policy: Policy = Policy.STRICT, scope: Scope = Scope.CITED) -> Holding:
    """A gate's core whose context was checked."""
    held = Holding(Terms("token", policy, scope, ()))
    ask = held.ask()
    assert ask is not None
    held.accept(held.judge(ask, told(ask.request, {})))
    return held


def step(held: Holding, bad: Bad | None = None) -> Judgement:
    """Ask, judge and accept, as a gate does."""
    ask = held.ask()
    assert ask is not None
    judged = held.judge(ask, told(ask.request, bad or {}))
    if judged.retraction is None:
        held.accept(judged)
    return judged


def let_out(pieces: Iterable[str], bad: Bad, policy: Policy) -> tuple[str, Retraction | None]:
    """All that comes out when each piece of text is followed by a verdict if there is something to ask."""
    held = holding(policy)
    for piece in pieces:
        held.feed(piece)
        if held.ask() is not None and (judged := step(held, bad)).retraction:
            return held.released, judged.retraction
    held.end()
    judged = step(held, bad)
    return held.released, judged.retraction


def pieces_of(text: str, data: st.DataObject) -> list[str]:
    ends = sorted(data.draw(st.sets(st.integers(0, len(text))), "split at"))
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def spans(text: str, bad: Bad) -> list[tuple[int, int]]:
    """Where a text cites what is bad, as the validator finds it."""
    cited = markers.parse(text)
    named = {target for marker in cited for target in marker.targets}
    labels = [label for label in markers.footnotes(text) if named.intersection(label.targets)]
    return [(it.start, it.end) for it in [*cited, *labels] if not bad.keys().isdisjoint(it.targets)]


# ── agreement with the whole ────────────────────────────────────────────────────────────────────────────────


@given(MARKDOWN | ANSWERS, st.data())
def test_text_that_is_good_comes_out_as_it_is(text: str, data: st.DataObject) -> None:
    """Under every policy and for every split, byte for byte."""
    policy = data.draw(st.sampled_from(Policy))
    assert (text, None) == let_out(pieces_of(text, data), {}, policy)


@given(MARKDOWN | ANSWERS, st.data())
def test_cutting_a_stream_leaves_what_cutting_the_whole_would(text: str, data: st.DataObject) -> None:
    """For every split the released text is that which `redact` leaves of the answer."""
    released, retraction = let_out(pieces_of(text, data), DELETED, Policy.REDACT)
    assert cut(text, spans(text, DELETED)) == released
    assert retraction is None or not released


@given(MARKDOWN | ANSWERS, st.data())
def test_nothing_strict_rests_on_what_is_bad(text: str, data: st.DataObject) -> None:
    """The answer is retracted exactly if it cites a dead chunk, and nothing that does was let out."""
    released, retraction = let_out(pieces_of(text, data), DELETED, Policy.STRICT)
    assert bool(spans(text, DELETED)) == (retraction is not None)
    assert text.startswith(released)
    assert [] == spans(released, DELETED)


@given(MARKDOWN | ANSWERS, st.data())
def test_a_flag_marks_what_leans_on_a_bad_citation(text: str, data: st.DataObject) -> None:
    """Everything comes out, and each claim with a dead citation lies in the span of a flag."""
    held = holding(Policy.FLAG)
    flags: list[Flag] = []
    for piece in pieces_of(text, data):
        held.feed(piece)
        if held.ask() is not None:
            flags += step(held, DELETED).flags
    held.end()
    flags += step(held, DELETED).flags
    assert text == held.released
    assert len(flags) <= 1
    for start, _ in spans(text, DELETED):
        assert any(begin <= start < end for flag in flags for begin, end in flag.spans) or len(flags) == 1


# ── when text comes out ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "released"),
    [
        ("You get 30 days [1].", ""),
        ("You get 30 days [1]. N", "You get 30 days [1]."),
        ("You get 30 days. [", ""),
        ("You get 30 days. [1] Next", "You get 30 days. [1]"),
        ("You get 30 days. (See [1", ""),
        ("You get 30 days.\n\nSource", ""),
        ("You get 30 days.\n\nThen you may go", "You get 30 days."),
        ("You get 30 days.\n\n- ", "You get 30 days."),
        ("You get 30 days [1].\n\n", "You get 30 days [1]."),
        ("It is `a. B", ""),
        ("It is `a [1]. B", ""),
        ("- one [1]\n- t", "- one [1]"),
        ("- one\n- two\n- thr", ""),
        ("- one\n- two\n\nAnd so it goes on", "- one\n- two"),
        ("| a | b |\n|---|---|\n", ""),
        ("| a | b |\n|---|---|\n| c | [1] |\n| d", "| a | b |\n|---|---|\n| c | [1] |"),
        ("# Leave\n\n", ""),
        ("# Leave\n\nYou get it [1]. So", "# Leave\n\nYou get it [1]."),
        ("Do:\n\n```\na. B\n", "Do:"),
        ("Do it [1]:\n\n```\na. B\n```\nSo it is done.", "Do it [1]:\n\n```\na. B\n```"),
        ("Leave[^1]. More[^1].\n\n[^1]: leave.md\n\nThe end of it all", "Leave[^1]. More[^1].\n\n[^1]: leave.md"),
        ("[^1]: leave.md\n\nThe end of it all", ""),
        ("休暇は30日です[1]。次", "休暇は30日です[1]。"),
        ("はい！️", ""),
        ("هل هذا صحيح؟ [1] نعم", "هل هذا صحيح؟ [1]"),
        ("छुट्टी 30 दिन है [1]। फिर", "छुट्टी 30 दिन है [1]।"),
    ],
)
def test_text_comes_out_when_its_claim_is_closed(written: str, released: str) -> None:
    """With the citations that belong to it, and no later than it must be."""
    held = holding()
    for character in written:
        held.feed(character)
        if held.ask() is not None:
            step(held)
    assert released == held.released


def test_a_request_names_all_that_is_cited_so_far() -> None:
    """So that the last verdict is one on the whole, and what dies meanwhile is noticed."""
    held = holding()
    held.feed("One [2]. Two [1, 2]. Three [100042]. And")
    step(held)
    held.end()
    ask = held.ask()
    assert ask is not None
    named = [(citation.ref, citation.chunk_id) for citation in ask.request.citations or ()]
    assert ([(2, None), (1, None), (None, "100042")], Scope.CITED) == (named, ask.request.scope)


@pytest.mark.parametrize(
    ("text", "scope", "expected"),
    [
        ("It says nothing of whence. And that is so", Scope.CITED, Scope.CONTEXT),
        ("It says so [1]. And that is", Scope.CITED, Scope.CITED),
        ("It says so [1]. And that is", Scope.CONTEXT, Scope.CONTEXT),
    ],
)
def test_what_cites_nothing_is_held_to_the_whole_context(text: str, scope: Scope, expected: Scope) -> None:
    """It may lean on any of the hits."""
    held = holding(scope=scope)
    held.feed(text)
    ask = held.ask()
    assert ask is not None
    assert expected is ask.request.scope


@pytest.mark.parametrize("target", [f"[{10**30}]", "[1-999]"])
def test_a_marker_that_cannot_be_read_is_asked_about(target: str) -> None:
    """As one that points nowhere."""
    held = holding()
    held.feed(f"So it is {target}. And")
    ask = held.ask()
    assert ask is not None
    assert "9" * 19 in [citation.chunk_id for citation in ask.request.citations or ()]


# ── policies ────────────────────────────────────────────────────────────────────────────────────────────────


def test_strict_retracts_what_was_shown() -> None:
    """Also when what dies was cited before, and with the reason and all that went out."""
    held = holding()
    held.feed("Good [1]. Good [2]. Goo")
    step(held)
    held.feed("d [3]. An")
    assert (
        Retraction("[1] is deleted", (_told(1, CitationStatus.DELETED),), "Good [1]. Good [2].")
        == step(held, DELETED).retraction
    )


def test_a_cut_says_where_and_why() -> None:
    held = holding(Policy.REDACT)
    held.feed("Good [2]. Bad [1]. Good [3]. An")
    judged = step(held, DELETED)
    assert "Good [2]. Good [3]." == judged.text
    assert (Cut(9, (_told(1, CitationStatus.DELETED),)),) == judged.notes
    assert Decision.FLAG is held.decision


def test_what_dies_after_it_was_shown_is_flagged_once_where_it_cannot_be_cut() -> None:
    held = holding(Policy.REDACT)
    held.feed("Bad [1]. Good [2]. Goo")
    step(held)
    held.feed("d [3]. Good [3]. An")
    judged = step(held, DELETED)
    assert (Flag((_told(1, CitationStatus.DELETED),), ((0, 8),)),) == judged.notes
    held.end()
    assert () == step(held, DELETED).notes


@pytest.mark.parametrize("status", [CitationStatus.ERASED, CitationStatus.FORBIDDEN])
@pytest.mark.parametrize("policy", [Policy.FLAG, Policy.REDACT])
def test_what_must_never_be_shown_is_retracted(policy: Policy, status: CitationStatus) -> None:
    """Where it was shown already."""
    held = holding(policy)
    held.feed("Bad [1]. Good [2]. Goo")
    step(held)
    held.feed("d [3]. An")
    assert step(held, {1: status}).retraction is not None


def test_nothing_left_is_a_retraction() -> None:
    """Of nothing: neither heading nor anything else went out."""
    held = holding(Policy.REDACT)
    held.feed("# Leave\n\nBad [1].\n\n## More\n")
    held.end()
    retraction = step(held, DELETED).retraction
    assert retraction is not None
    assert "" == retraction.released


def test_dead_context_that_nothing_cites_cannot_be_cut() -> None:
    """What leans on it is not known."""
    for policy in (Policy.STRICT, Policy.REDACT):
        held = Holding(Terms("token", policy, Scope.CITED, ()))
        ask = held.ask()
        assert ask is not None
        assert held.judge(ask, told(ask.request, {}, uncited=[4])).retraction is not None


def test_dead_context_is_flagged() -> None:
    held = Holding(Terms("token", Policy.FLAG, Scope.CITED, ()))
    ask = held.ask()
    assert ask is not None
    assert (Flag((_told(4, CitationStatus.DELETED),), ()),) == held.judge(ask, told(ask.request, {}, uncited=[4])).notes


# ── loud ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_verdict_that_leaves_out_a_citation_is_none() -> None:
    held = holding()
    held.feed("Good [1]. Good [2]. An")
    ask = held.ask()
    assert ask is not None
    answer = told(ask.request, {})
    with pytest.raises(VerdictIncomplete, match=r"\[2\]"):
        held.judge(ask, answer.model_copy(update={"citations": answer.citations[:1]}))
    assert "" == held.released


def test_a_judgement_that_is_not_accepted_changes_nothing() -> None:
    """A verdict that came too late is asked for again, with what has come meanwhile."""
    held = holding()
    held.feed("Good [1]. An")
    ask = held.ask()
    assert ask is not None
    held.judge(ask, told(ask.request, {}))
    held.feed("d good [2]. An")
    assert "Good [1]. And good [2]." == step(held).text


def test_more_citations_than_a_verdict_covers_are_refused() -> None:
    held = holding()
    held.feed(" ".join(f"So it is [{number}-{number + 99}]." for number in range(1, 2_000, 100)))
    held.end()
    with pytest.raises(InvalidRequest, match="1000 chunks"):
        held.ask()


# ── cost ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "unit", ["a", "a ", "- a\n", "# a\n", "a. ", "A. ", "```\n", "[1", "[1]\n", "|a|\n", "`", "\n", "( A. "]
)
def test_long_texts_take_linear_time(unit: str) -> None:
    """Whatever is repeated, token by token: quadratic time would not end here within anybody's patience."""
    held = holding()
    for _ in range(30_000 // len(unit)):
        held.feed(unit)
        if held.ask() is not None:
            step(held)
    held.end()
    step(held)
    assert unit * (30_000 // len(unit)) == held.released
