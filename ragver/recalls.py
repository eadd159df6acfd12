"""Recalls as they are read and followed: pages in the order of (epoch, answer), none missed and none told twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragver import wire
from ragver.errors import InvalidRequest
from ragver.ledger import answers, recalls
from ragver.ledger.database import Database
from ragver.ledger.recalls import Fallen, Position, Recalled
from ragver.liveness import Views
from ragver.types import CorpusId, Epoch, Scope

SPANS_MAX = 50
"""Spans of epochs that one read goes through; where there is more, the reader goes on from the cursor."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A page, and where the next one begins."""

    corpus: CorpusId
    recalls: Sequence[Recalled]
    position: Position
    head: Epoch

    @property
    def more(self) -> bool:
        """Whether there may be more right now."""
        return self.position < Position(self.head)


class Recalls:
    """Reads recalls for the API and for webhooks."""

    def __init__(self, database: Database, views: Views) -> None:
        self._database = database
        self._views = views

    async def page(self, name: str, after: Position, scope: Scope, limit: int) -> wire.RecallPage:
        """Up to `limit` recalls after a position, oldest first, and the cursor from which to go on at any time."""
        reading = await self.read(name, after, scope, limit)
        return wire.RecallPage(
            recalls=[described(recalled) for recalled in reading.recalls],
            next_cursor=cursor_of(reading.position),
            more=reading.more,
            head=reading.head,
        )

    async def read(self, name: str, after: Position, scope: Scope, limit: int) -> Reading:
        """The same as the ledger has it. Raises ``CorpusNotFound``, ``AnswersUnsettled``."""
        view, head = await self._views.fresh(name)
        corpus = view.info.corpus_id
        if after >= Position(head.epoch):
            return Reading(corpus, [], after, head.epoch)
        # Or an answer could be recorded behind us, with a verdict older than the deaths that we are about to pass.
        await answers.settle(self._database, corpus)
        found: list[Recalled] = []
        for _ in range(SPANS_MAX):
            until = await recalls.span(self._database, corpus, _before(after), head.epoch)
            found += await recalls.page(self._database, corpus, after, until, scope, limit - len(found))
            if len(found) == limit:
                return Reading(corpus, found, found[-1].position, head.epoch)
            after = Position(until)
            if until == head.epoch:
                break
        return Reading(corpus, found, after, head.epoch)

    async def at(self, name: str, position: Position, scope: Scope) -> Recalled | None:
        """The recall at a position; None if there is none, say because its answer is no longer kept."""
        view, _ = await self._views.fresh(name)
        before = Position(position.epoch, position.answer - 1)
        found = await recalls.page(self._database, view.info.corpus_id, before, position.epoch, scope, 1)
        return found[0] if found and found[0].position == position else None


def _before(position: Position) -> Epoch:
    """The last epoch that was told to its end."""
    return position.epoch if position == Position(position.epoch) else Epoch(position.epoch - 1)


def cursor_of(position: Position) -> str:
    """The position as readers are given it: an epoch, or a place in one."""
    whole = position == Position(position.epoch)
    return str(position.epoch) if whole else f"{position.epoch}.{position.answer}"


def position_of(cursor: str) -> Position:
    """The position of a cursor. Raises ``InvalidRequest``."""
    epoch, dot, answer = cursor.partition(".")
    parts = (epoch, answer) if dot else (epoch,)
    if not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in parts):
        raise InvalidRequest("the cursor is not one that was given out; start again from an epoch")
    return Position(Epoch(int(epoch)), int(answer)) if dot else Position(Epoch(int(epoch)))


def described(recalled: Recalled) -> wire.Recall:
    """As readers are told."""
    return wire.Recall(
        recall_id=cursor_of(recalled.position),
        answer_id=recalled.answer_key,
        delivered_epoch=recalled.delivered_epoch,
        delivered_at=recalled.delivered_at,
        epoch=recalled.position.epoch,
        committed_at=recalled.committed_at,
        actor=recalled.actor,
        reason=recalled.reason,
        chunks=[_chunk(fallen) for fallen in recalled.chunks],
    )


def _chunk(fallen: Fallen) -> wire.RecalledChunk:
    return wire.RecalledChunk(
        chunk_id=str(fallen.chunk_id),
        ref=fallen.ref,
        cited=fallen.cited,
        cause=fallen.cause,
        document_key=fallen.document_key,
        version=fallen.version,
        superseded_by=fallen.superseded_by,
    )
