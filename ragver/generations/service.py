"""Beginning, watching, cutting over to and retiring index generations, as people and programs ask for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ragver import wire
from ragver.clock import Clock
from ragver.collection import leftover_of
from ragver.embedding.registry import complete
from ragver.errors import (
    EmbeddingUnchanged,
    GenerationInTheWay,
    GenerationNotFound,
    GenerationNotReady,
    IndexUnavailable,
    InvalidRequest,
)
from ragver.index.port import Index
from ragver.ledger import corpora, lifecycle
from ragver.ledger.corpora import CorpusInfo
from ragver.ledger.database import Database
from ragver.ledger.lifecycle import Account, CutOver
from ragver.telemetry import logger
from ragver.types import Epoch, GenerationId, GenerationState

LOCK_LAG_EPOCHS_MAX = 200
LOCK_CHUNKS_MAX = 256
"""How far behind a generation may be, in epochs and in chunks without a vector, when commits are held back for it to
catch up."""
NEAR_LAG_EPOCHS = 1
NEAR_S_MAX = 3.0
"""How near the head it should be before commits are held back, and how long that is waited for at most."""
LOCKED_S_MAX = 2.0
"""How long commits are held back for that at most, in one attempt."""
CUT_OVER_ATTEMPTS_MAX = 3
LOOK_S = 0.01
"""How often to see whether it has caught up."""


class Generations:
    """The generations of every corpus."""

    def __init__(self, database: Database, index: Index, clock: Clock, wake: Callable[[], None]) -> None:
        self._database = database
        self._index = index
        self._clock = clock
        self._wake = wake

    async def begin(self, name: str, request: wire.GenerationCreate) -> tuple[wire.Generation, bool]:
        """Begin to build a generation beside the serving one, or go on with one that was begun for the same embedding;
        and whether it was begun now.

        Raises ``CorpusNotFound``, ``InvalidRequest`` for an impossible embedding, ``EmbeddingUnchanged`` or
        ``GenerationInTheWay``.
        """
        info = await corpora.get(self._database, name)
        embedding = info.generation.embedding if request.embedding is None else complete(request.embedding)
        if request.embedding is not None:
            _check_change(info, embedding)
        generation, begun = await lifecycle.begin(self._database, info.corpus_id, embedding)
        self._wake()
        return _told(await lifecycle.account(self._database, info.corpus_id, generation)), begun

    async def all_of(self, name: str) -> list[wire.Generation]:
        """The corpus's generations that are not retired, the oldest first. Raises ``CorpusNotFound``."""
        info = await corpora.get(self._database, name)
        return [_told(account) for account in await lifecycle.accounts(self._database, info.corpus_id)]

    async def get(self, name: str, generation_id: str) -> wire.Generation:
        """One generation, also a retired one. Raises ``CorpusNotFound``, ``GenerationNotFound``."""
        return _told(await self._account(await corpora.get(self._database, name), _parsed(generation_id)))

    async def cut_over(self, name: str, generation_id: str) -> wire.CutOver:
        """Let the generation serve; the one that did stands by from then on. Commits wait meanwhile, reads do not.

        Raises ``GenerationNotReady`` while it lacks vectors, its check, or changes that commits keep adding faster
        than it can follow; ``GenerationInTheWay`` if it serves already or is retired.
        """
        info, target = await corpora.get(self._database, name), _parsed(generation_id)
        account = await self._account(info, target)
        for _ in range(CUT_OVER_ATTEMPTS_MAX):
            _check_near(account)
            await self._come_near(info, target)
            done = await self._try_cut_over(info, target)
            if done is not None:
                epoch, former, locked_s = done
                logger.info("generation_cut_over", corpus=name, generation=target, former=former, epoch=epoch)
                told = _told(await self._account(info, target))
                return wire.CutOver(generation=told, former=str(former), epoch=epoch, locked_ms=locked_s * 1000)
            account = await self._account(info, target)
        raise GenerationNotReady(
            f"generation {target} did not catch up within {LOCKED_S_MAX:g} s, {CUT_OVER_ATTEMPTS_MAX} times; see "
            f"whether an indexer runs, and try again{_reason(account)}"
        )

    async def retire(self, name: str, generation_id: str) -> None:
        """End a generation that is being built or stands by, for good. Raises ``GenerationInTheWay`` for the serving
        one."""
        info, target = await corpora.get(self._database, name), _parsed(generation_id)
        retired = await lifecycle.retire(self._database, info.corpus_id, target)
        if retired is not None:
            with suppress(IndexUnavailable):  # it is remembered, and dropped when the index is back
                await self._index.drop(leftover_of(retired))
        elif (await self._account(info, target)).state is GenerationState.SERVING:
            raise GenerationInTheWay(f"generation {target} serves; cut over to another one first")

    async def _come_near(self, info: CorpusInfo, target: GenerationId) -> None:
        """Wait a little for a moment when next to nothing is missing: what is, commits have to wait for."""
        until_s = self._clock.monotonic() + NEAR_S_MAX
        while await lifecycle.lag(self._database, info.corpus_id, target) > NEAR_LAG_EPOCHS:
            if self._clock.monotonic() >= until_s:
                return
            await self._clock.sleep(LOOK_S)

    async def _try_cut_over(self, info: CorpusInfo, target: GenerationId) -> tuple[Epoch, GenerationId, float] | None:
        """The epoch, the former generation and the seconds that it took; None if the target did not catch up."""
        async with lifecycle.cutting_over(self._database, info.corpus_id, target) as cutting:
            locked_at_s = self._clock.monotonic()
            if not await self._caught_up(cutting, locked_at_s + LOCKED_S_MAX) or not await cutting.swap():
                return None
        return cutting.head, cutting.serving, self._clock.monotonic() - locked_at_s

    async def _caught_up(self, cutting: CutOver, until_s: float) -> bool:
        self._wake()
        while not await cutting.ready():
            if self._clock.monotonic() >= until_s:
                return False
            await self._clock.sleep(LOOK_S)
        return True

    async def _account(self, info: CorpusInfo, generation: GenerationId) -> Account:
        return await lifecycle.account(self._database, info.corpus_id, generation)


def _parsed(generation_id: str) -> GenerationId:
    if not (generation_id.isascii() and generation_id.isdecimal() and len(generation_id) <= 18):
        raise GenerationNotFound(f"{generation_id[:50]!r} is not the id of an index generation; it is a number")
    return GenerationId(int(generation_id))


def _check_change(info: CorpusInfo, embedding: wire.Embedding) -> None:
    serving = info.generation.embedding
    if serving == embedding:
        raise EmbeddingUnchanged(
            f"generation {info.generation.generation_id} serves with this embedding already; leave it out to build the "
            "index anew, or use `ragver index rebuild`"
        )
    if "external" in (serving.provider, embedding.provider):
        raise InvalidRequest(
            "only clients have the vectors of an external embedding, so ragver cannot go from or to one by itself: "
            "make another corpus with the embedding that you want, put the documents there, and retrieve from it"
        )


def _check_near(account: Account) -> None:
    """Raise unless it is worth holding commits back for the rest."""
    generation = account.generation.generation_id
    if account.state in (GenerationState.SERVING, GenerationState.RETIRED):
        what = "serves already" if account.state is GenerationState.SERVING else "is retired; begin a new one"
        raise GenerationInTheWay(f"generation {generation} {what}")
    if account.chunks - account.embedded > LOCK_CHUNKS_MAX:
        stands = f"has vectors of {account.embedded} of its {account.chunks} chunks"
    elif account.head - account.applied > LOCK_LAG_EPOCHS_MAX:
        stands = f"has applied epoch {account.applied} of {account.head}"
    elif account.state is GenerationState.BUILDING and account.verified is None:
        stands = "has not been found equal to the ledger yet"
    else:
        return
    raise GenerationNotReady(f"generation {generation} {stands}; wait for it{_reason(account)}")


def _reason(account: Account) -> str:
    return "" if account.problem is None else f" ({account.problem})"


def _told(account: Account) -> wire.Generation:
    return wire.Generation(
        id=str(account.generation.generation_id),
        state=account.state,
        embedding=account.generation.embedding,
        collection=account.generation.collection,
        head=account.head,
        applied_epoch=account.applied,
        verified_epoch=account.verified,
        chunks=account.chunks,
        embedded=account.embedded,
        problem=account.problem,
        created_at=account.created_at,
    )
