"""What a gate holds back, and what a verdict lets out of it. Pure: no waiting, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import assert_never

from ragver import wire
from ragver.citations import told
from ragver.citations.cutting import Cutting
from ragver.citations.growing import Growing
from ragver.citations.pieces import Coming, Piece
from ragver.errors import InvalidRequest
from ragver.gate.events import Cut, Flag, Retraction, Span
from ragver.types import CitationStatus, Decision, Policy, Scope

LOOK_UNITS = 64
"""With more units than this held back that wait for what comes, they are looked at again only when they have
become more by an eighth, so that a long list costs no square of its length."""

_NEVER_SHOWN = {CitationStatus.ERASED, CitationStatus.FORBIDDEN}


@dataclass(frozen=True, slots=True)
class Terms:
    """What the gate was told at the start."""

    snapshot: str
    policy: Policy
    scope: Scope
    principals: tuple[str, ...]
    answer_id: str | None = None
    """Under which what goes out is put on record; None: it is not."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a verdict, and the units it is about."""

    request: wire.ValidateRequest
    units: tuple[Piece, ...]
    targets: tuple[int, ...]
    """All that is cited in them and in what was released before, each once."""
    coming: Coming | None
    last: bool
    gap: str
    """White space after the last unit."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows from a verdict; nothing of it has happened before it is accepted."""

    cutting: Cutting
    step: _Step
    verdict: wire.ValidateResponse
    flags: tuple[Flag, ...]
    cuts: tuple[Cut, ...]
    retraction: Retraction | None

    @property
    def text(self) -> str:
        """What may be released while the verdict is good."""
        return self.step.text

    @property
    def notes(self) -> tuple[Flag | Cut, ...]:
        """What is to be said about the text, once it is out."""
        return (*self.flags, *self.cuts)


class Holding:
    """Text between the model and the reader."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._growing = Growing()
        self._units: list[Piece] = []
        self._gap = ""
        self._ended = False
        self._context_is_checked = False
        self._cutting = Cutting()
        self._cited: set[int] = set()
        """By any unit so far."""
        self._released: list[str] = []
        self._length = 0
        self._leaning: dict[int, list[Span]] = {}
        """What the released text cites, and where the units are that do."""
        self._flagged: set[str] = set()
        self._look_at = 0
        self._seen: tuple[int, Coming | None] = (0, None)
        """What there was when there was nothing to ask."""
        self._held = 0
        self._accepted: Judgement | None = None

    @property
    def held(self) -> int:
        """How many characters are held back."""
        self._settle()
        return self._held + self._growing.held

    @property
    def released(self) -> str:
        """All that went out."""
        self._settle()
        return "".join(self._released)

    @property
    def decision(self) -> Decision:
        """On the whole text, once it is out."""
        self._settle()
        return Decision.FLAG if self._flagged or self._cutting.cuts else Decision.PASS

    def feed(self, text: str) -> None:
        """Take more of what the model writes."""
        self._take(self._growing.feed(text))

    def end(self) -> None:
        """The model has ended."""
        units, self._gap = self._growing.end()
        self._take(units)
        self._ended = True

    def _take(self, units: Sequence[Piece]) -> None:
        self._units += units
        for unit in units:
            self._cited.update(unit.targets)
            self._held += len(unit.gap) + len(unit.body)

    def ask(self, *, thoroughly: bool = False) -> Ask | None:
        """What to ask next; None while there is nothing that a verdict could let out.

        Long blocks and lists are not looked at after each piece of text, unless `thoroughly`.
        """
        self._settle()
        if not self._context_is_checked:
            return self._asking((), None, last=False)
        if self._ended:
            return self._asking(self._units, None, last=True)
        if thoroughly:
            self._take(self._growing.look())
        elif len(self._units) < self._look_at or self._seen == (len(self._units), self._growing.coming):
            return None
        units, coming = self._before_footnotes()
        if self._cutting.take(units, [False] * len(units), coming=coming).left:
            return self._asking(units, coming, last=False)
        self._seen = (len(self._units), self._growing.coming)
        self._look_at = len(self._units) * 9 // 8 if len(self._units) > LOOK_UNITS else 0
        return None

    def _before_footnotes(self) -> tuple[Sequence[Piece], Coming | None]:
        """The definition of a footnote goes where its references go, so it waits for the first."""
        for number, unit in enumerate(self._units):
            if unit.label is not None and unit.label not in self._cited:
                return self._units[:number], Coming(unit.kind, may_be_bare=False)
        return self._units, self._growing.coming

    def _asking(self, units: Sequence[Piece], coming: Coming | None, *, last: bool) -> Ask:
        named = (target for unit in units for target in self._named(unit))
        targets = tuple(dict.fromkeys((*self._leaning, *named)))
        if len(targets) > wire.CITATIONS_MAX:
            raise InvalidRequest(f"the text cites more than {wire.CITATIONS_MAX} chunks; no verdict covers that many")
        return Ask(self._request(targets), tuple(units), targets, coming, last, self._gap if last else "")

    def _request(self, targets: Sequence[int]) -> wire.ValidateRequest:
        terms = self._terms
        # Cutting happens here, and not at the validator, which sees no text: there it is a flag.
        policy = Policy.FLAG if terms.policy is Policy.REDACT else terms.policy
        records = terms.answer_id is not None and self._context_is_checked
        return wire.ValidateRequest(
            snapshot=terms.snapshot,
            citations=[told.citation(target) for target in targets],
            policy=policy,
            # What cites nothing may lean on any of the hits.
            scope=terms.scope if targets else Scope.CONTEXT,
            principals=list(terms.principals),
            record=records,
            answer_id=terms.answer_id if records else None,
        )

    def judge(self, ask: Ask, verdict: wire.ValidateResponse) -> Judgement:
        """What the verdict means for the units that were asked about. Raises ``VerdictIncomplete``."""
        self._settle()
        found = _Told(ask.targets, verdict)
        redacts = self._terms.policy is Policy.REDACT
        touched = [redacts and not found.bad.keys().isdisjoint(self._named(unit)) for unit in ask.units]
        cutting = self._cutting.take(ask.units, touched, coming=ask.coming, last=ask.last)
        step = _Step(cutting, ask, self._length)
        retraction = self._retraction(found, cutting, last=ask.last)
        return Judgement(cutting, step, verdict, self._flags(found, step), step.cuts(found), retraction)

    def _named(self, unit: Piece) -> tuple[int, ...]:
        """What a unit leans on; the definition of a footnote, on what its label names, if that is cited."""
        return (*unit.targets, unit.label) if unit.label is not None and unit.label in self._cited else unit.targets

    def _retraction(self, found: _Told, cutting: Cutting, *, last: bool) -> Retraction | None:
        match self._terms.policy:
            case Policy.STRICT:
                stands = not found.all_bad and found.decision is Decision.PASS
            case Policy.FLAG:
                stands = found.decision is not Decision.REJECT
            case Policy.REDACT:
                # Of what was shown before it died, nothing can be cut any more.
                shown = {found.bad[target].status for target in self._leaning if target in found.bad}
                left = cutting.says_something or not (last and cutting.cuts)
                stands = left and not found.uncited and shown.isdisjoint(_NEVER_SHOWN)
            case _:
                assert_never(self._terms.policy)
        return None if stands else Retraction(_detail(found), tuple(found.all_bad), self.released)

    def _flags(self, found: _Told, step: _Step) -> tuple[Flag, ...]:
        """One for each bad citation that released text leans on, once."""
        flags = []
        for target, verdict in found.bad.items():
            spans = (*self._leaning.get(target, ()), *step.leaning.get(target, ()))
            if spans and _name(verdict) not in self._flagged:
                flags.append(Flag((verdict,), spans))
        if self._terms.policy is Policy.FLAG:
            flags += [Flag((verdict,), ()) for verdict in found.uncited if _name(verdict) not in self._flagged]
        return tuple(flags)

    def accept(self, judgement: Judgement) -> None:
        """Let happen what was judged. One assignment: it stands between the check of the lease and the reader."""
        self._accepted = judgement

    def _settle(self) -> None:
        """Do what was accepted, at the first occasion after it went out."""
        judgement, self._accepted = self._accepted, None
        if judgement is None:
            return
        step = judgement.step
        self._context_is_checked = True
        self._cutting = judgement.cutting
        gone, self._units = self._units[: len(step.left)], self._units[len(step.left) :]
        self._held -= sum(len(unit.gap) + len(unit.body) for unit in gone)
        self._look_at, self._seen = 0, (0, None)
        self._released.append(step.text)
        self._length += len(step.text)
        for target, spans in step.leaning.items():
            self._leaning.setdefault(target, []).extend(spans)
        self._flagged |= {_name(verdict) for flag in judgement.flags for verdict in flag.citations}


class _Told:
    """A verdict, by what was asked."""

    def __init__(self, targets: Sequence[int], verdict: wire.ValidateResponse) -> None:
        entries = told.by_target(targets, verdict)
        cited = set(map(_name, entries.values()))
        self.decision = verdict.verdict
        self.bad = {target: entry for target, entry in entries.items() if entry.status is not CitationStatus.LIVE}
        self.all_bad = [entry for entry in verdict.citations if entry.status is not CitationStatus.LIVE]
        self.uncited = [entry for entry in self.all_bad if _name(entry) not in cited]
        """Bad hits that the text may lean on without saying so."""


class _Step:
    """What a verdict lets out, and where in the released text that stands."""

    def __init__(self, cutting: Cutting, ask: Ask, start: int) -> None:
        self.left = cutting.left
        self.text = cutting.text + ask.gap
        self.leaning: dict[int, list[Span]] = {}
        self._units = ask.units
        self._ends = list(accumulate((len(left or "") for left in self.left), initial=start))[1:]
        for unit, left, end in zip(ask.units, self.left, self._ends, strict=False):
            for target in unit.targets if left is not None else ():
                self.leaning.setdefault(target, []).append((end - len(unit.body), end))

    def cuts(self, found: _Told) -> tuple[Cut, ...]:
        """One for each unit that is cut."""
        return tuple(
            Cut(end, tuple(found.bad[target] for target in dict.fromkeys(unit.targets) if target in found.bad))
            for unit, left, end in zip(self._units, self.left, self._ends, strict=False)
            if left is None
        )


def _name(verdict: wire.CitationVerdict) -> str:
    return f"{verdict.ref} {verdict.chunk_id} {verdict.status}"


def _detail(found: _Told) -> str:
    details = [verdict.detail for verdict in found.all_bad]
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{details[0]}{more}" if details else "The validator rejected the answer and named no citation."
