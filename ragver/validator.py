"""The decision on a piece of generated text: from its citations, and the facts about what they cite, a verdict.

Pure: who asks makes sure that the facts are fresh. Status by status a citation has to get past every reason to
refuse it, and only what is left is live.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from ragver import wire
from ragver.citations import markers, quotes
from ragver.citations.cutting import cut
from ragver.errors import InvalidRequest
from ragver.types import (
    REF_MAX,
    WILDCARD,
    Cause,
    ChunkId,
    CitationStatus,
    Decision,
    Epoch,
    Policy,
    Scope,
)

CITED_MAX = 10_000
"""The most that the markers of one answer may name, counted with repetitions."""
CHUNK_ID_MAX = 2**63 - 1

_NEVER_SHOWN = {CitationStatus.ERASED, CitationStatus.FORBIDDEN}

Span = tuple[int, int]
Name = tuple[int | None, ChunkId | None]
"""What a citation points to: a chunk, or a ref that stands for none."""


@dataclass(frozen=True, slots=True)
class ChunkFacts:
    """What is true of a chunk at the epoch of the verdict."""

    chunk_id: ChunkId
    born_epoch: Epoch
    died_epoch: Epoch | None
    cause: Cause | None
    document_key: str
    document_alive: bool
    acl: tuple[str, ...]
    """Today's."""
    version: int
    """The newest version that holds the chunk."""
    current_version: int | None
    """The document's; None when it is dead."""
    text: str | None
    """None when it is gone."""

    @property
    def dead(self) -> bool:
        """Whether anything at all says that the chunk is dead."""
        return self.died_epoch is not None or self.cause is not None or not self.document_alive


@dataclass(frozen=True, slots=True)
class Citation:
    """One chunk that is cited, with one quote or none, however often it is."""

    ref: int | None
    """As it was asked for; None when the chunk was named by its id."""
    chunk_id: ChunkId | None
    """What the ref stands for; None when it stands for nothing."""
    quote: str | None
    spans: tuple[Span, ...] = ()
    """Where the answer's markers name it."""
    named: bool = True
    """False for a hit that only scope `context` brings in."""
    misquoted: bool = False
    """What was found of its quote before, where that is not at hand any more."""

    @property
    def name(self) -> Name:
        return (None, self.chunk_id) if self.chunk_id is not None else (self.ref, None)


@dataclass(frozen=True, slots=True)
class Question:
    """A request to validate, read against the hits of its snapshot."""

    request: wire.ValidateRequest
    hits: tuple[ChunkId, ...]
    """In the order of their refs."""
    citations: tuple[Citation, ...]

    @classmethod
    def of(cls, request: wire.ValidateRequest, hits: Sequence[ChunkId]) -> Question:
        """Explicit citations first, then what only the answer's markers name, then the hits that scope `context`
        adds. Raises ``InvalidRequest`` when the answer cites beyond all measure."""
        hits = tuple(hits)
        return cls(request, hits, tuple(_citations(request, hits)))

    @property
    def wanted(self) -> list[ChunkId]:
        """The chunks to bring the facts about, each once."""
        cited = (citation.chunk_id for citation in self.citations)
        return list(dict.fromkeys(chunk_id for chunk_id in cited if chunk_id is not None and chunk_id <= CHUNK_ID_MAX))


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    citations: list[wire.CitationVerdict]
    answer: str | None
    """What is left of the answer, under policy `redact` and unless it is rejected."""


def decide(question: Question, facts: Mapping[ChunkId, ChunkFacts]) -> Verdict:
    """The verdict, given what is known of the wanted chunks; a chunk that `facts` lacks does not exist."""
    judge = _Judge(question, facts)
    statuses = [judge.status(citation) for citation in question.citations]
    bad = [
        citation
        for citation, status in zip(question.citations, statuses, strict=True)
        if status is not CitationStatus.LIVE
    ]
    decision, answer = _decision(question, statuses, bad)
    assert bad or decision is Decision.PASS
    assert not bad or decision is not Decision.PASS
    verdicts = [judge.verdict(*judged) for judged in zip(question.citations, statuses, strict=True)]
    return Verdict(decision, verdicts, answer)


# ── what is cited ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the answer names a chunk, and by which ref it does so first."""

    ref: int | None
    spans: list[Span]


def _citations(request: wire.ValidateRequest, hits: tuple[ChunkId, ...]) -> Iterator[Citation]:
    places = _places(request.answer or "", hits)
    refs: dict[tuple[Name, str | None], int | None] = {}
    for explicit in request.citations or ():
        refs.setdefault((_name(explicit.ref, explicit.chunk_id, hits), explicit.quote), explicit.ref)
    named = {name for name, _ in refs}
    refs |= {(name, None): place.ref for name, place in places.items() if name not in named}
    named |= places.keys()
    for (name, quote), ref in refs.items():
        spans = tuple(places[name].spans) if name in places else ()
        yield Citation(ref, name[1], quote, spans)
    for ref, hit in enumerate(hits, 1) if request.scope is Scope.CONTEXT else ():
        if (None, hit) not in named:
            named.add((None, hit))
            yield Citation(ref, hit, None, named=False)


def _places(answer: str, hits: tuple[ChunkId, ...]) -> dict[Name, _Place]:
    """What the answer's markers name, in order of first appearance."""
    cited = markers.parse(answer)
    if sum(len(marker.targets) for marker in cited) > CITED_MAX:
        raise InvalidRequest(f"the markers of the answer name more than {CITED_MAX} chunks; validate it in parts")
    places: dict[Name, _Place] = {}
    for marker in cited:
        for target in marker.targets:
            ref, chunk_id = _ref_or_chunk(target)
            place = places.setdefault(_name(ref, chunk_id, hits), _Place(ref, []))
            place.spans.append((marker.start, marker.end))
    # A footnote's definition goes where its references go.
    for label in markers.footnotes(answer) if places else ():
        if (name := _name(*_ref_or_chunk(label.targets[0]), hits)) in places:
            places[name].spans.append((label.start, label.end))
    return places


def _ref_or_chunk(target: int) -> tuple[int | None, int | None]:
    return (target, None) if target <= REF_MAX else (None, target)


def _name(ref: int | None, chunk_id: str | int | None, hits: tuple[ChunkId, ...]) -> Name:
    if ref is None:
        assert chunk_id is not None
        return None, ChunkId(int(chunk_id))
    return (None, hits[ref - 1]) if 1 <= ref <= len(hits) else (ref, None)


# ── the status of each citation ─────────────────────────────────────────────────────────────────────────────


class _Judge:
    """Knows the facts and the reader."""

    def __init__(self, question: Question, facts: Mapping[ChunkId, ChunkFacts]) -> None:
        self._facts = facts
        self._labels = {WILDCARD, *question.request.principals}
        self._refs = {chunk_id: ref for ref, chunk_id in enumerate(question.hits, 1)}

    def _known(self, citation: Citation) -> ChunkFacts | None:
        return None if citation.chunk_id is None else self._facts.get(citation.chunk_id)

    def _may_read(self, known: ChunkFacts) -> bool:
        return not self._labels.isdisjoint(known.acl)

    def status(self, citation: Citation) -> CitationStatus:
        """The first of the reasons to refuse the citation that applies."""
        known = self._known(citation)
        if known is None:
            return CitationStatus.UNKNOWN
        if known.cause is Cause.ERASED:
            return CitationStatus.ERASED
        if not self._may_read(known):
            return CitationStatus.FORBIDDEN
        if known.dead:
            return CitationStatus.SUPERSEDED if known.document_alive else CitationStatus.DELETED
        if known.chunk_id not in self._refs:
            return CitationStatus.NOT_RETRIEVED
        if citation.misquoted or not self._says(known, citation.quote):
            return CitationStatus.MISQUOTED
        return CitationStatus.LIVE

    @staticmethod
    def _says(known: ChunkFacts, quote: str | None) -> bool:
        return quote is None or (known.text is not None and quotes.contains(known.text, quote))

    def verdict(self, citation: Citation, status: CitationStatus) -> wire.CitationVerdict:
        """What the reader is told: of a document that is not open to it, nothing."""
        known = self._known(citation)
        if known is not None and not self._may_read(known):
            known = None
        assert status is not CitationStatus.LIVE or (known is not None and not known.dead)
        return wire.CitationVerdict(
            ref=self._ref(citation),
            chunk_id=self._shown_id(citation, status),
            status=status,
            document_key=known.document_key if known else None,
            version=known.version if known else None,
            died_epoch=known.died_epoch if known else None,
            superseded_by=known.current_version if known and status is CitationStatus.SUPERSEDED else None,
            detail=_detail(citation, status, known, len(self._refs)),
        )

    def _ref(self, citation: Citation) -> int | None:
        if citation.ref is None and citation.chunk_id is not None:
            return self._refs.get(citation.chunk_id)
        return citation.ref

    @staticmethod
    def _shown_id(citation: Citation, status: CitationStatus) -> str | None:
        made_up = status is CitationStatus.UNKNOWN and citation.ref is not None
        if citation.chunk_id in (None, markers.UNREADABLE) or made_up:
            return None
        return str(citation.chunk_id)


def _detail(citation: Citation, status: CitationStatus, known: ChunkFacts | None, hits: int) -> str:
    """What is wrong, and what to do about it, for people."""
    if status is CitationStatus.UNKNOWN:
        return _unknown(citation, hits)
    if status is CitationStatus.ERASED:
        return "The cited text was erased for good; discard what leans on it and retrieve again."
    if known is None:
        assert status is CitationStatus.FORBIDDEN
        return "This reader may not see the cited text; do not show what leans on it."
    return _told(status, known)


def _unknown(citation: Citation, hits: int) -> str:
    if citation.chunk_id == markers.UNREADABLE:
        return "This marker holds a number or a range too long to be a citation; cite the hits by their refs."
    if citation.chunk_id is not None and citation.ref is None:
        return f"There is no chunk {citation.chunk_id} in this corpus: it is made up; cite only what was retrieved."
    if citation.chunk_id is not None:
        return f"The chunk behind ref {citation.ref} is not in the ledger; retrieve again."
    return f"The snapshot has {hits} hits and no ref {citation.ref}: it is made up; cite only what was retrieved."


def _told(status: CitationStatus, known: ChunkFacts) -> str:
    key = known.document_key
    match status:
        case CitationStatus.SUPERSEDED:
            return f"{key} has changed: its version {known.current_version} no longer says this; retrieve again."
        case CitationStatus.DELETED:
            return f"{key} no longer exists; discard what leans on it and retrieve again."
        case CitationStatus.NOT_RETRIEVED:
            return f"This text of {key} exists, but the snapshot's retrieval did not return it; cite only its hits."
        case CitationStatus.MISQUOTED if known.text is None:
            return f"The text of {key} is gone, so the quote cannot be confirmed; retrieve again."
        case CitationStatus.MISQUOTED:
            return f"The cited text of {key} does not hold this quote; quote it word for word, or without a quote."
        case CitationStatus.LIVE:
            return f"Version {known.version} of {key} says this now."
        case CitationStatus.UNKNOWN | CitationStatus.ERASED | CitationStatus.FORBIDDEN:
            raise AssertionError(status)
        case _:
            assert_never(status)


# ── what follows for the text ───────────────────────────────────────────────────────────────────────────────


def _decision(
    question: Question, statuses: Sequence[CitationStatus], bad: Sequence[Citation]
) -> tuple[Decision, str | None]:
    policy = question.request.policy
    if not bad:
        return Decision.PASS, question.request.answer if policy is Policy.REDACT else None
    match policy:
        case Policy.STRICT:
            return Decision.REJECT, None
        case Policy.FLAG:
            return (Decision.FLAG if _NEVER_SHOWN.isdisjoint(statuses) else Decision.REJECT), None
        case Policy.REDACT:
            left = _redacted(question, bad)
            return (Decision.FLAG, left) if left else (Decision.REJECT, None)
        case _:
            assert_never(policy)


def _redacted(question: Question, bad: Sequence[Citation]) -> str:
    """The answer without what leans on the bad citations; empty if one of them cannot be located in it."""
    answer = question.request.answer
    if answer is None or not all(citation.spans for citation in bad):
        return ""
    left = cut(answer, [span for citation in bad for span in citation.spans])
    return left if _cites_only(left, question, bad) else ""


def _cites_only(text: str, question: Question, bad: Sequence[Citation]) -> bool:
    """Whether all that `text` cites was judged live. Text that closes up where something was cut may read as
    Markdown in another way, and bring forth what was code before."""
    live = {citation.name for citation in question.citations} - {citation.name for citation in bad}
    targets = {target for marker in markers.parse(text) for target in marker.targets}
    return live.issuperset(_name(*_ref_or_chunk(target), question.hits) for target in targets)
