"""Answers that are streamed while the documents they rest on change: through the gate, and past it, in one run.

A stand-in for a model writes sentences with markers from the hits, at the speed of one. Each of its sentences has two
readers. One gets it as soon as it is written, as from a pipeline that retrieves and then streams. The other gets
what the gate lets through. What reached whom, and when, is judged afterwards (``tests.support.deeds``).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ragver import wire
from ragver.client import AsyncClient
from ragver.clock import SystemClock
from ragver.errors import RagverError
from ragver.gate import AsyncGatedStream, Cut, Flag, Released, Retraction
from ragver.gate.flow import AsyncValidate
from ragver.types import CitationStatus, Decision, Policy, Scope
from tests.support.deeds import Cited, Shown, Wrong
from tests.support.soak_author import STAFF, Author

K = 10
SENTENCES = 20
TOKENS_PER_S = 50.0
WORDS_QUOTED = 12
CITED_LATELY = 3
"""Citations that count as being cited now."""
DAWDLED_TTLS_MAX = 5.0
"""How many times a lease some readers take over what they got, before they ask for more."""
MARKER = re.compile(r"\[(\d+)\]")
READERS = (frozenset[str](), frozenset({STAFF}))
WAYS = ((Policy.STRICT, Scope.CITED), (Policy.REDACT, Scope.CITED), (Policy.STRICT, Scope.CONTEXT))

Gate = Callable[..., AsyncGatedStream]


class Stopped(SystemClock):
    """A clock on which no time passes: a gate that goes by it holds every lease for good."""

    def monotonic(self) -> float:
        return 0.0


async def no_validation(request: wire.ValidateRequest) -> wire.ValidateResponse:
    """A validator that does not look."""
    return wire.ValidateResponse(
        verdict=Decision.PASS,
        epoch=0,
        snapshot_epoch=0,
        checked_at=datetime.now(UTC),
        valid_for_ms=60_000,
        citations=[_believed(citation) for citation in request.citations or ()],
    )


def _believed(citation: wire.CitationInput) -> wire.CitationVerdict:
    return wire.CitationVerdict(
        ref=citation.ref,
        chunk_id=citation.chunk_id,
        status=CitationStatus.LIVE,
        document_key=None,
        version=None,
        died_epoch=None,
        superseded_by=None,
        detail="nobody has looked",
    )


SWITCHED_OFF: dict[str, dict[str, Any]] = {
    "lease": {"gate": partial(AsyncGatedStream, clock=Stopped())},
    "validation": {"validate": no_validation},
}
"""What of the gate can be taken away, as arguments of ``soak``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what."""

    seconds: float
    corpus: str = "handbook"
    streams: int = 8
    changes_per_s: float = 10.0
    verdict_ttl_ms: int = 1_000
    pages: int | None = None
    """The first pages of the history; all of them if None."""
    aimed_share: float = 0.2
    """Of the changes that are not in the history: how many go for what is being cited just then."""
    dawdling_share: float = 0.3
    """Of the streams: how many have a slow reader."""
    seed: int = 0


@dataclass(slots=True)
class Findings:
    """What was shown, and what of that was wrong."""

    seconds: float
    changes: Counter[str]
    streams: Counter[str]
    """Gated streams by how they ended."""
    gated: list[Shown]
    gated_wrong: list[Wrong]
    bare: list[Shown]
    bare_wrong: list[Wrong]

    def figures(self) -> dict[str, Any]:
        """All of it in numbers."""
        return {
            "seconds": self.seconds,
            "changes": self.changes,
            "streams": self.streams,
            "gated": {"sentences": len(self.gated), "wrong": len(self.gated_wrong)},
            "bare": {"sentences": len(self.bare), "wrong": len(self.bare_wrong)},
        }


async def soak(
    client: AsyncClient,
    records: Sequence[dict[str, Any]],
    questions: Sequence[str],
    plan: Plan,
    *,
    gate: Gate = AsyncGatedStream,
    validate: AsyncValidate | None = None,
) -> Findings:
    """Streams and changes side by side. `gate` and `validate` may be ones with something switched off."""
    chance = random.Random(plan.seed)
    await client.create_corpus(wire.CorpusCreate(name=plan.corpus, verdict_ttl_ms=plan.verdict_ttl_ms))
    readers = [
        _Readers(client, questions, plan, random.Random(plan.seed * 1_000 + number), gate, validate)
        for number in range(plan.streams)
    ]
    author = Author(
        client,
        plan.corpus,
        records,
        chance=chance,
        rate_per_s=plan.changes_per_s,
        aimed_share=plan.aimed_share,
        cited_now=lambda: [cited for reader in readers for cited in reader.citing],
    )
    await author.begin(plan.pages)
    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as everybody:
        everybody.create_task(author.work(begun_s + plan.seconds))
        for reader in readers:
            everybody.create_task(reader.read(begun_s + plan.seconds))
    gated = [shown for reader in readers for shown in reader.gated]
    bare = [shown for reader in readers for shown in reader.bare]
    return Findings(
        seconds=time.monotonic() - begun_s,
        changes=author.done,
        streams=sum((reader.ended for reader in readers), Counter()),
        gated=gated,
        gated_wrong=author.deeds.wrongs(gated),
        bare=bare,
        bare_wrong=author.deeds.wrongs(bare),
    )


@dataclass(slots=True)
class _Readers:
    """The two readers of one answer after the other."""

    client: AsyncClient
    questions: Sequence[str]
    plan: Plan
    chance: random.Random
    gate: Gate
    validate: AsyncValidate | None
    gated: list[Shown] = field(default_factory=list)
    bare: list[Shown] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    citing: deque[Cited] = field(default_factory=lambda: deque(maxlen=CITED_LATELY))
    """What the sentences rest on that are on their way now."""

    async def read(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            await self._answer(until_s)

    async def _answer(self, until_s: float) -> None:
        principals = self.chance.choice(READERS)
        found = await self.client.retrieve(
            self.plan.corpus,
            wire.RetrieveRequest(query=self.chance.choice(self.questions), k=K, principals=sorted(principals)),
        )
        hits = tuple(Cited(hit.document.key, found.epoch, hit.chunk_id, hit.text) for hit in found.hits)
        policy, scope = self.chance.choice(WAYS)
        gated = self.gate(
            self.validate or self._validate,
            found.snapshot,
            self._model(hits, principals),
            policy=policy,
            scope=scope,
            principals=sorted(principals),
        )
        dawdles = self.chance.random() < self.plan.dawdling_share
        taking = self._take(gated, hits, principals, dawdles=dawdles)
        try:
            async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
                self.ended[await taking] += 1
        except TimeoutError:
            self.ended["left"] += 1
        except RagverError as error:  # the gate could not check: loud, and nothing more was shown
            self.ended[error.code] += 1

    async def _validate(self, request: wire.ValidateRequest) -> wire.ValidateResponse:
        return await self.client.validate(self.plan.corpus, request)

    async def _take(
        self, gated: AsyncGatedStream, hits: Sequence[Cited], principals: frozenset[str], *, dawdles: bool
    ) -> str:
        """Read to the end, and keep what was shown when; how it ended."""
        ended = "whole"
        async with gated:
            async for event in gated.events():
                if isinstance(event, Released):
                    if event.late:
                        return "late"
                    self.gated += _shown(event, hits, principals)
                    if dawdles:
                        await asyncio.sleep(self.chance.uniform(0, DAWDLED_TTLS_MAX * self.plan.verdict_ttl_ms / 1000))
                elif isinstance(event, Retraction):
                    return "retracted"
                elif isinstance(event, Cut | Flag):
                    ended = "cut"
        return ended

    async def _model(self, hits: Sequence[Cited], principals: frozenset[str]) -> AsyncIterator[str]:
        for _ in range(SENTENCES if hits else 0):
            sentence = self._sentence(hits)
            self.citing += [cited for shown in _shown(sentence, hits, principals) for cited in shown.cited]
            for token in sentence.split():
                await asyncio.sleep(self.chance.expovariate(TOKENS_PER_S))
                yield f"{token} "
            self.bare += _shown(sentence, hits, principals)

    def _sentence(self, hits: Sequence[Cited]) -> str:
        ref = self.chance.randint(1, len(hits))
        words = re.findall(r"[a-zA-Z]{2,}", hits[ref - 1].text)
        begin = self.chance.randrange(max(1, len(words) - WORDS_QUOTED))
        also = f" [{self.chance.randint(1, len(hits))}]" if self.chance.random() < 0.2 else ""
        return f"The page says that {' '.join(words[begin : begin + WORDS_QUOTED])} [{ref}]{also}."


def _shown(text: str, hits: Sequence[Cited], principals: frozenset[str]) -> list[Shown]:
    """The sentences of a text that has just reached its reader."""
    at_s = time.monotonic()
    refs = [[int(ref) for ref in MARKER.findall(sentence)] for sentence in text.split(".")]
    return [Shown(at_s, tuple(hits[ref - 1] for ref in dict.fromkeys(cited)), principals) for cited in refs if cited]
