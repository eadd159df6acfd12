"""The story of the race: a plain pipeline and ragver, asked the same while the handbook changes under them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from ragver import wire
from ragver.demo import ending
from ragver.demo.drafts import Draft, objections, written
from ragver.demo.handbook import FILTERABLE, SCENES, DemoCommit, Scene, commits, epoch_at
from ragver.demo.plain import PlainPipeline
from ragver.demo.sandbox import Interruption, Sandbox, opened
from ragver.demo.stage import Column, Stage, citation_lines, quoted, verdict_line
from ragver.types import Decision, Level, Policy

CORPUS: Final = "handbook"
HITS: Final = 5
INTRODUCTION: Final = """\
A retriever finds a passage, a model takes some seconds to write, and in the meantime somebody changes the page. \
Nothing fails, and the answer is wrong. Here is that race, run four times on the handbook of an invented company.

Two pipelines get the same questions, over the same index. The plain one retrieves and answers. ragver retrieves \
at an epoch and checks the citations before anything is released.

There is no language model in the box: the answers were written beforehand, and which one you see depends on the \
passages that were found. All else is real: PostgreSQL, the Qdrant engine, both pipelines, every verdict."""
TITLES: Final = {
    "deletion": "A page is deleted while the answer is being written",
    "edit": "A number is edited while the answer is being written",
    "permission": "A page is closed to the reader while the answer is being written",
    "time travel": "A question about the past",
}
PLAIN: Final = "a plain pipeline"
RAGVER: Final = "ragver"


def run(*, fast: bool = False) -> None:
    """Tell the story on stores of its own. Raises ``KeyboardInterrupt`` if it was cut short, when all is closed."""
    if not asyncio.run(_told(Stage(Console(highlight=False), fast=fast))):
        raise KeyboardInterrupt


async def _told(stage: Stage) -> bool:
    """Whether the story came to its end."""
    interruption = Interruption()
    with interruption.listening():
        stage.say(INTRODUCTION)
        stage.gap()
        async with opened() as sandbox:
            await interruption.cuts_short(Story(stage, sandbox).tell())
        if interruption.asked:
            return False
        ending.tell(stage)
    return True


@dataclass(slots=True)
class Tally:
    """What happened, counted."""

    changes: int = 0
    plain_released: int = 0
    plain_wrong: int = 0
    stopped: int = 0
    ragver_released: int = 0
    ragver_wrong: int = 0
    checks_s: list[float] = field(default_factory=list)


class Story:
    """Plays the handbook's history and then its scenes."""

    def __init__(self, stage: Stage, sandbox: Sandbox) -> None:
        self._stage = stage
        self._sandbox = sandbox
        self._client = sandbox.client
        self._plain = PlainPipeline(sandbox.services, CORPUS)
        self._tally = Tally()

    async def tell(self) -> None:
        """From the empty stores to the figures."""
        history = commits()
        async with self._sandbox.indexing():
            await self._replay(history)
        for number, scene in enumerate(SCENES, 1):
            self._stage.heading(f"{number} of {len(SCENES)}: {TITLES[scene.name]}")
            if scene.name == "deletion":
                await self._race(scene)
                await self._ask_again(scene)
                continue
            async with self._sandbox.indexing():
                await self._sandbox.caught_up(CORPUS)
                if scene.as_of is not None:
                    await self._look_back(scene, epoch_at(history, scene.as_of), f"{scene.as_of:%d %B %Y}")
                else:
                    snapshot = await self._race(scene)
                    if scene.name == "permission":
                        await self._reopen(scene, snapshot)
        self._sum_up(len(history))

    async def _replay(self, history: Sequence[DemoCommit]) -> None:
        await self._client.create_corpus(wire.CorpusCreate(name=CORPUS, filterable=FILTERABLE))
        with self._stage.progress("Replaying the handbook's history", len(history)) as advance:
            for commit in history:
                await self._client.commit(CORPUS, commit.operations, reason=commit.reason, actor=commit.actor)
                advance()
        await self._sandbox.caught_up(CORPUS)
        corpus = await self._client.corpus(CORPUS)
        self._stage.say(
            f"Replayed the handbook from {history[0].time:%B %Y} to {history[-1].time:%B %Y}: {corpus.head} commits, "
            f"each an epoch; {corpus.documents} pages are left, in {corpus.chunks} chunks, all of them indexed."
        )

    # ── the scenes ──────────────────────────────────────────────────────────────────────────────────────────

    async def _race(self, scene: Scene) -> str:
        """A change while the answer is being written; returns the snapshot from before it."""
        assert scene.live is not None
        plainly = written(scene, await self._plain.retrieve(scene.question, scene.principals, HITS))
        found = await self._retrieve(scene)
        draft = written(scene, found.hits)
        self._show_question(scene, found)
        await self._stage.writing(draft.text, lambda: self._change(scene.live))
        verdict = await self._validate(scene, found, draft)
        self._tally.stopped += verdict.verdict is Decision.REJECT
        kept = await self._validate(scene, found, draft, Policy.REDACT)
        await self._stage.side_by_side(
            await self._released_plainly(scene, plainly, verdict.epoch),
            (RAGVER, [*_checked(verdict), *_left(kept), *await self._second_attempt(scene)]),
        )
        return found.snapshot

    async def _ask_again(self, scene: Scene) -> None:
        """The same question after the change, while the index does not know of it yet."""
        corpus = await self._client.corpus(CORPUS)
        self._stage.gap()
        self._stage.say(
            f"Asked again, after the deletion. The indexer was stopped for this scene, as if it had much to do: the "
            f"index holds epoch {corpus.applied_epoch}, the head is {corpus.head}."
        )
        self._stage.gap()
        plainly = written(scene, await self._plain.retrieve(scene.question, scene.principals, HITS))
        found = await self._retrieve(scene)
        draft = written(scene, found.hits)
        verdict = await self._validate(scene, found, draft)
        tail = Text(f"Read at epoch {found.epoch}: the index, and {found.tail} later changes from the ledger.\n")
        await self._stage.side_by_side(
            await self._released_plainly(scene, plainly, found.head),
            (RAGVER, [tail, *await self._released(scene, verdict, draft, found.epoch)]),
        )

    async def _reopen(self, scene: Scene, snapshot: str) -> None:
        """A retrieval at the epoch from before the change: the texts of then, for the readers of now."""
        exact = wire.Consistency(level=Level.EXACT, snapshot=snapshot)
        found = await self._retrieve(scene, exact)
        key = next(iter(scene.answer.sources.values())).key
        shown = any(hit.document.key == key for hit in found.hits)
        self._stage.gap()
        self._stage.say(
            f"The snapshot from before the change, read once more: epoch {found.epoch} of {found.head}, "
            f"{len(found.hits)} hits, {key} {'is' if shown else 'is not'} among them. Texts are those of the snapshot; "
            "who may read them is decided now."
        )

    async def _look_back(self, scene: Scene, epoch: int, day: str) -> None:
        """A question that only the past can answer."""
        plainly = written(scene, await self._plain.retrieve(scene.question, scene.principals, HITS))
        found = await self._retrieve(scene, wire.Consistency(level=Level.EXACT, epoch=epoch))
        draft = written(scene, found.hits)
        self._show_question(scene, found)
        await self._stage.writing(draft.text, _nothing)
        verdict = await self._validate(scene, found, draft, Policy.FLAG)
        then = Text(f"Read at epoch {epoch}, the handbook of {day}. Policy flag, since the past is asked for.\n")
        await self._stage.side_by_side(
            await self._released_plainly(scene, plainly, epoch),
            (RAGVER, [then, *citation_lines(verdict), *await self._released(scene, verdict, draft, epoch)]),
        )

    # ── what both pipelines do ──────────────────────────────────────────────────────────────────────────────

    async def _retrieve(self, scene: Scene, consistency: wire.Consistency | None = None) -> wire.RetrieveResponse:
        wanted = wire.Consistency() if consistency is None else consistency
        request = wire.RetrieveRequest(
            query=scene.question, k=HITS, principals=list(scene.principals), consistency=wanted
        )
        return await self._client.retrieve(CORPUS, request)

    async def _validate(
        self, scene: Scene, found: wire.RetrieveResponse, draft: Draft, policy: Policy = Policy.STRICT
    ) -> wire.ValidateResponse:
        request = wire.ValidateRequest(
            snapshot=found.snapshot, answer=draft.text, policy=policy, principals=list(scene.principals)
        )
        started = time.perf_counter()
        verdict = await self._client.validate(CORPUS, request)
        self._tally.checks_s.append(time.perf_counter() - started)
        return verdict

    async def _change(self, live: wire.CommitRequest | None) -> Text:
        assert live is not None
        result = await self._client.commit(CORPUS, live.ops, reason=live.reason, actor=live.actor)
        self._tally.changes += 1
        done = ", ".join(f"{change.key} {change.status.value}" for change in result.documents)
        return Text.assemble(
            ("Meanwhile  ", "bold red"), f"epoch {result.epoch}, {live.actor}: {done}", (f" ({live.reason})", "dim")
        )

    async def _second_attempt(self, scene: Scene) -> list[RenderableType]:
        """Once a verdict has stopped an answer: retrieve, write and check anew."""
        found = await self._retrieve(scene)
        draft = written(scene, found.hits)
        verdict = await self._validate(scene, found, draft)
        return [Text("\nSo: retrieve and write again"), *await self._released(scene, verdict, draft, found.epoch)]

    async def _released_plainly(self, scene: Scene, draft: Draft, epoch: int) -> Column:
        """The plain pipeline's answer, and what is wrong with it."""
        wrong = await objections(self._client, CORPUS, draft, scene.principals, epoch)
        self._tally.plain_released += 1
        self._tally.plain_wrong += bool(wrong)
        judged = [Text(f"Wrong: {objection}.", style="red") for objection in wrong]
        return PLAIN, [Text("released, unchecked"), quoted(draft.text), Text(""), *judged]

    async def _released(
        self, scene: Scene, verdict: wire.ValidateResponse, draft: Draft, epoch: int
    ) -> list[RenderableType]:
        """What ragver lets through, and what would be wrong with it."""
        if verdict.verdict is Decision.REJECT:
            return [Text.assemble(verdict_line(verdict), ": nothing is released")]
        wrong = await objections(self._client, CORPUS, draft, scene.principals, epoch)
        self._tally.ragver_released += 1
        self._tally.ragver_wrong += bool(wrong)
        judged = [Text(f"Wrong: {objection}.", style="red") for objection in wrong]
        return [Text.assemble(verdict_line(verdict), ": released"), quoted(draft.text), *judged]

    # ── printing ────────────────────────────────────────────────────────────────────────────────────────────

    def _show_question(self, scene: Scene, found: wire.RetrieveResponse) -> None:
        self._stage.question(scene.question, scene.principals)
        rows = [(hit.ref, f"{hit.document.key} v{hit.document.version}", _words(hit, scene)) for hit in found.hits]
        self._stage.passages(f"ragver retrieves at epoch {found.epoch}:", rows)

    def _sum_up(self, replayed: int) -> None:
        tally = self._tally
        self._stage.heading("What happened")
        self._stage.numbers(
            [
                (f"{replayed + tally.changes}", f"commits, {tally.changes} of them while an answer was being written"),
                (
                    f"{tally.plain_wrong} of {tally.plain_released}",
                    "answers that the plain pipeline released and the pages themselves do not bear out",
                ),
                (
                    f"{tally.ragver_wrong} of {tally.ragver_released}",
                    f"of those that ragver let through; {tally.stopped} other drafts it stopped",
                ),
                (
                    f"{median(tally.checks_s) * 1000:.1f} ms",
                    f"for a check, the median of {len(tally.checks_s)}; all of the HTTP application, but no network",
                ),
            ]
        )


async def _nothing() -> None:
    """What happens meanwhile in a scene in which nothing does."""


def _checked(verdict: wire.ValidateResponse) -> list[RenderableType]:
    return [verdict_line(verdict), *citation_lines(verdict)]


def _left(kept: wire.ValidateResponse) -> list[RenderableType]:
    """What policy redact would let through."""
    if kept.answer is None:
        return [Text("\nPolicy redact would leave nothing of it.")]
    return [Text("\nPolicy redact would leave"), quoted(kept.answer)]


def _words(hit: wire.Hit, scene: Scene) -> str:
    """The passage that an answer leans on, else how the chunk begins."""
    for source in scene.answer.sources.values():
        if source.key == hit.document.key and source.passage in hit.text:
            return source.passage
    return " ".join(hit.text.split())
