"""Search at an epoch.

The data's way: the ledger's head says which epoch to read and up to where the index can be trusted; the index
finds what it holds; the tail overlay speaks for everything that was touched since; the ledger confirms each
chunk and gives its text. What the ledger does not confirm is dropped, so an index that lags, loses or garbles
can make an answer thinner but never wrong.

Which applied epoch bounds the tail matters: one that was read *before* the search began. With a later one,
whatever the indexer applied in between would be in neither the search nor the tail. A strong read searches
while it reads the head, so it goes by the applied epoch of an earlier read; the tail is then a little longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from ragver import wire
from ragver.clock import Clock
from ragver.embedding.registry import Embedders, as_vector, normalised
from ragver.errors import EpochAhead, IndexLagging, InvalidRequest, QueryNotEmbeddable, SnapshotExpired, TimeAhead
from ragver.filters import Filter, parse
from ragver.index.port import Collection, Index, Match, Search
from ragver.ledger import chunks, corpora
from ragver.ledger.chunks import ChunkRecord
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.ledger.database import Database
from ragver.liveness import CorpusView, Views
from ragver.overlay import Overlay, Question, Tail, merged, overlay_of, without
from ragver.telemetry import Metrics, logger
from ragver.tokens import Snapshot, SnapshotTokens, fingerprint
from ragver.types import WILDCARD, ChunkId, CorpusId, Epoch, GenerationId, Level

BOUNDED_LAG_EPOCHS_DEFAULT = 100
SEARCH_SLACK = 8
"""Matches asked for beyond k, so that a few unconfirmed ones do not cost a second search."""
SEARCH_WIDENING = 4
SEARCH_LIMIT_MAX = 20_000
ATTEMPTS_MAX = 5
"""How often a read is repeated because metadata changed under it."""
INDEX_WAIT_STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    tail_rows_max: int
    index_wait_s_max: float


@dataclass(frozen=True, slots=True)
class Moment:
    """What a search goes by: the epoch to read, and a head that was read before the search began."""

    epoch: Epoch
    basis: Head


class Retrieval:
    """Retrieves from any corpus of the ledger."""

    def __init__(
        self,
        database: Database,
        index: Index,
        views: Views,
        embedders: Embedders,
        tokens: SnapshotTokens,
        clock: Clock,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._index = index
        self._views = views
        self._embedders = embedders
        self._tokens = tokens
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._tails: dict[GenerationId, Tail] = {}

    async def retrieve(self, name: str, request: wire.RetrieveRequest) -> wire.RetrieveResponse:
        """Up to k chunks alive at one epoch that today's access lists let the principals read, best first.

        Raises ``CorpusNotFound``, ``SnapshotExpired``, ``EpochAhead``, ``FilterInvalid``, ``VectorInvalid``,
        ``IndexLagging``, or that a store is unavailable; never returns a thinner result in their place.
        """
        view = await self._views.get(name)
        condition = None if request.filter is None else parse(request.filter, view.info.filterable)
        vector = await self._vector(view.info, request)
        deadline = self._clock.monotonic() + self._limits.index_wait_s_max
        level = request.consistency.level if request.consistency else Level.STRONG
        with self._metrics.retrievals.labels("as_of" if request.as_of else level.value).time():
            while True:
                try:
                    return await self._attempt(name, request, vector, condition)
                except IndexLagging:
                    if self._clock.monotonic() > deadline:
                        raise
                    await self._clock.sleep(INDEX_WAIT_STEP_S)

    async def _attempt(
        self, name: str, request: wire.RetrieveRequest, vector: NDArray[np.float32], condition: Filter | None
    ) -> wire.RetrieveResponse:
        for _ in range(ATTEMPTS_MAX):
            answer = await self._read(name, request, vector, condition)
            if answer is not None:
                return answer
        raise IndexLagging("filterable metadata kept changing during the read; try again")

    async def _read(
        self, name: str, request: wire.RetrieveRequest, vector: NDArray[np.float32], condition: Filter | None
    ) -> wire.RetrieveResponse | None:
        """One read; None if metadata that the filter speaks of changed between its first and its last step."""
        view = await self._views.get(name)
        early = self._search_early(view, request, vector, condition)
        try:
            committed_by = await self._committed_by(view.info, request)
            view, head = await self._views.fresh(name)
            epoch = committed_by if committed_by is not None else self._level_epoch(view.info, head, request)
            self._check_epoch(epoch, view.info, head)
            if early is not None and early.view is view:
                moment, matches = Moment(epoch, early.basis), early.matches
            else:
                moment, matches = Moment(epoch, head), None
            question = Question(vector, epoch, request.principals, condition)
            reading = _Reading(self, view, moment, head, question, request.k, matches)
            hits = await reading.hits()
        finally:
            if early is not None:
                early.discard()
        if not await self._confirmed(view, head, question):
            return None
        return self._answer(view, head, reading, hits, request)

    def _search_early(
        self, view: CorpusView, request: wire.RetrieveRequest, vector: NDArray[np.float32], condition: Filter | None
    ) -> _Early | None:
        """A strong read need not wait for the head to search: what the head says was touched is put right after."""
        strong = request.as_of is None and (request.consistency is None or request.consistency.level is Level.STRONG)
        basis = view.last
        if not strong or basis is None or basis.applied == 0:
            return None
        question = Question(vector, basis.epoch, request.principals, condition)
        search = self.search(view.info, question, request.k + SEARCH_SLACK, may_hold_newer=False)
        return _Early(view, basis, asyncio.ensure_future(search))

    async def _vector(self, info: CorpusInfo, request: wire.RetrieveRequest) -> NDArray[np.float32]:
        generation = info.generation
        if request.vector is not None:
            vector = as_vector(request.vector, generation.dimensions)
        else:
            embedder = self._embedders.get(generation.embedding)
            if embedder is None:
                raise QueryNotEmbeddable(f"the clients of corpus {info.name!r} bring their own vectors: send `vector`")
            assert request.query is not None
            vector = await embedder.embed_query(request.query)
        return normalised(vector[np.newaxis], generation.distance)[0]

    async def _committed_by(self, info: CorpusInfo, request: wire.RetrieveRequest) -> Epoch | None:
        """The epoch of `as_of`; asked for before the head, which then is at least as new."""
        if request.as_of is None:
            return None
        epoch, now = await corpora.epoch_at(self._database, info.corpus_id, request.as_of)
        if request.as_of > now:
            raise TimeAhead(f"`as_of` lies ahead of the ledger's clock ({now.isoformat()}); leave it out for now")
        return epoch

    @staticmethod
    def _check_epoch(epoch: Epoch, info: CorpusInfo, head: Head) -> None:
        if epoch > head.epoch:
            raise EpochAhead(f"epoch {epoch} has not been issued; the head of {info.name!r} is {head.epoch}")
        _check_horizon(epoch, head)

    def _level_epoch(self, info: CorpusInfo, head: Head, request: wire.RetrieveRequest) -> Epoch:
        wanted = request.consistency or wire.Consistency()
        match wanted.level:
            case Level.STRONG:
                return head.epoch
            case Level.BOUNDED:
                lag = BOUNDED_LAG_EPOCHS_DEFAULT if wanted.max_lag_epochs is None else wanted.max_lag_epochs
                return Epoch(max(head.applied, head.epoch - lag))
            case Level.AT_LEAST:
                return max(head.applied, self._named_epoch(info, wanted))
            case Level.EXACT:
                return self._named_epoch(info, wanted)
            case _:
                assert_never(wanted.level)

    def _named_epoch(self, info: CorpusInfo, wanted: wire.Consistency) -> Epoch:
        if wanted.snapshot is not None:
            return self._tokens.read(wanted.snapshot, info.corpus_id).epoch
        if wanted.epoch is None:
            raise InvalidRequest(f"level {wanted.level} needs `epoch` or `snapshot`")
        return Epoch(wanted.epoch)

    async def overlays(self, view: CorpusView, moment: Moment, head: Head, filtered: bool) -> list[Overlay]:
        """What the index cannot be trusted with at the moment; the first of two that hold a chunk is right."""
        tail = await self._tail(view.info).cover(moment.basis.applied, head.epoch)
        if not filtered or head.payload_epoch <= moment.epoch:
            return [tail]
        info, limit = view.info, self._limits.tail_rows_max
        generation = info.generation
        described = await chunks.redescribed(
            self._database, info.corpus_id, generation.generation_id, moment.epoch, limit + 1
        )
        if len(described) > limit:
            raise IndexLagging(f"the metadata of more than {limit} chunks has changed since epoch {moment.epoch}")
        return [overlay_of(described, generation.distance, generation.dimensions), tail]

    def _tail(self, info: CorpusInfo) -> Tail:
        generation = info.generation
        tail = self._tails.get(generation.generation_id)
        if tail is None:
            tail = Tail(
                self._database,
                info.corpus_id,
                generation.generation_id,
                generation.distance,
                generation.dimensions,
                self._limits.tail_rows_max,
            )
            self._tails[generation.generation_id] = tail
        return tail

    async def search(self, info: CorpusInfo, question: Question, limit: int, *, may_hold_newer: bool) -> list[Match]:
        """The index's matches; it need not be right, only tried."""
        search = Search(
            vector=question.vector,
            limit=limit,
            epoch=question.epoch,
            principals=question.principals,
            filter=question.filter,
            may_hold_newer=may_hold_newer,
        )
        return await self._index.search(collection_of(info), search)

    async def records(
        self, view: CorpusView, chunk_ids: Sequence[ChunkId], epoch: Epoch
    ) -> Mapping[ChunkId, ChunkRecord]:
        """The chunks as the ledger confirms them at `epoch`, with today's access lists."""
        if epoch == view.seen:
            return await view.records(chunk_ids)
        return await chunks.records_at(self._database, view.info.corpus_id, chunk_ids, epoch)

    def dropped(self, reason: str, chunk_id: ChunkId, corpus: CorpusId, epoch: Epoch) -> None:
        """Count a match that the ledger did not confirm."""
        self._metrics.dropped.labels(reason).inc()
        logger.info("match_dropped", reason=reason, chunk_id=chunk_id, corpus_id=corpus, epoch=epoch)

    async def _confirmed(self, view: CorpusView, head: Head, question: Question) -> bool:
        """The last look at the ledger. Reads behind the head may have lost points to retention meanwhile, and a
        filter may have met metadata that is newer than the epoch."""
        if question.epoch == head.epoch and question.filter is None:
            return True
        last = await view.fresh()
        _check_horizon(question.epoch, last)
        return question.filter is None or last.payload_epoch == head.payload_epoch

    def _answer(
        self,
        view: CorpusView,
        head: Head,
        reading: _Reading,
        hits: list[tuple[Match, ChunkRecord]],
        request: wire.RetrieveRequest,
    ) -> wire.RetrieveResponse:
        snapshot = Snapshot(
            corpus=view.info.corpus_id,
            epoch=reading.moment.epoch,
            chunk_ids=tuple(match.chunk_id for match, _ in hits),
            principals=fingerprint(request.principals),
            issued_at_s=int(self._clock.now().timestamp()),
        )
        return wire.RetrieveResponse(
            snapshot=self._tokens.issue(snapshot),
            epoch=reading.moment.epoch,
            head=head.epoch,
            applied_epoch=head.applied,
            tail=reading.tail_rows,
            hits=[_hit(ref, match, record) for ref, (match, record) in enumerate(hits, 1)],
        )


@dataclass(frozen=True, slots=True)
class _Early:
    """A search that began before the head was known, and what it went by."""

    view: CorpusView
    basis: Head
    matches: asyncio.Future[list[Match]]

    def discard(self) -> None:
        """Nobody waits for the matches any more, nor for the error in their place."""
        self.matches.cancel()
        self.matches.add_done_callback(lambda done: done.cancelled() or done.exception())


class _Reading:
    """One read at one moment: search, overlay, confirm, and search wider while hits are missing."""

    def __init__(
        self,
        retrieval: Retrieval,
        view: CorpusView,
        moment: Moment,
        head: Head,
        question: Question,
        k: int,
        early: asyncio.Future[list[Match]] | None,
    ) -> None:
        self.moment = moment
        self.tail_rows = 0
        self._retrieval = retrieval
        self._view = view
        self._head = head
        self._question = question
        self._k = k
        self._early = early

    async def hits(self) -> list[tuple[Match, ChunkRecord]]:
        """Up to k confirmed matches, best first."""
        limit = self._k + SEARCH_SLACK
        while True:
            found = await self._search(limit)
            # Only now: the tail must be at least as new as what the search may have seen applied.
            hits = await self._confirm(found, limit)
            if len(hits) >= self._k or len(found) < limit or limit >= SEARCH_LIMIT_MAX:
                return hits[: self._k]
            limit = min(limit * SEARCH_WIDENING, SEARCH_LIMIT_MAX)

    async def _search(self, limit: int) -> list[Match]:
        if self._early is not None:
            early, self._early = self._early, None
            return await early
        if self.moment.basis.applied == 0:
            return []
        newer = self.moment.epoch < self.moment.basis.applied
        return await self._retrieval.search(self._view.info, self._question, limit, may_hold_newer=newer)

    async def _confirm(self, found: Sequence[Match], limit: int) -> list[tuple[Match, ChunkRecord]]:
        filtered = self._question.filter is not None
        overlays = await self._retrieval.overlays(self._view, self.moment, self._head, filtered)
        self.tail_rows = len(overlays[-1])
        distance = self._view.info.generation.distance
        candidates = without(found, overlays)
        for place, overlay in enumerate(overlays):
            put_aside = overlays[0] if place > 0 else None
            candidates = merged(candidates, overlay.best(self._question, limit, put_aside), distance)
        records = await self._retrieval.records(
            self._view, [match.chunk_id for match in candidates[:limit]], self.moment.epoch
        )
        return [
            (match, record)
            for match in candidates[:limit]
            if (record := self._allowed(records.get(match.chunk_id), match.chunk_id)) is not None
        ]

    def _allowed(self, record: ChunkRecord | None, chunk_id: ChunkId) -> ChunkRecord | None:
        """The record, if it may be shown: alive at the epoch, its text still there, readable today."""
        epoch = self.moment.epoch
        if record is None or record.text is None or not record.alive_at(epoch):
            self._retrieval.dropped("not_alive", chunk_id, self._view.info.corpus_id, epoch)
            return None
        if not {WILDCARD, *self._question.principals}.intersection(record.acl):
            self._retrieval.dropped("forbidden", chunk_id, self._view.info.corpus_id, epoch)
            return None
        return record


def collection_of(info: CorpusInfo) -> Collection:
    """Where the points of the corpus's serving generation are."""
    generation = info.generation
    return Collection(generation.collection, generation.dimensions, generation.distance, info.filterable)


def _check_horizon(epoch: Epoch, head: Head) -> None:
    if epoch < head.horizon:
        raise SnapshotExpired(
            f"epoch {epoch} lies before the horizon {head.horizon}; retrieve again for a new snapshot"
        )


def _hit(ref: int, match: Match, record: ChunkRecord) -> wire.Hit:
    assert record.text is not None
    return wire.Hit(
        ref=ref,
        chunk_id=str(match.chunk_id),
        score=match.score,
        text=record.text,
        document=wire.HitDocument(
            key=record.key, version=record.version, title=record.title, uri=record.uri, metadata=record.metadata
        ),
        born_epoch=record.born_epoch,
    )
