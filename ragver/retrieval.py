"""Search at an epoch.

The data's way: the ledger's head says which epoch to read and up to where the index can be trusted; the index
finds what it holds; the tail overlay speaks for everything that was touched since; the ledger confirms each
chunk and gives its text. What the ledger does not confirm is dropped, so an index that lags, loses or garbles
can make an answer thinner but never wrong.

Which applied epoch bounds the tail matters: one that was read *before* the search began. With a later one,
whatever the indexer applied in between would be in neither the search nor the tail. A strong read searches
while it reads the head, so it goes by the applied epoch of an earlier read; the tail is then a little longer.

An answer that may be thinner than it should be, and every read behind the head, takes a last look at the ledger:
the horizon may have passed the epoch, the index may have been made anew, the corpus may be gone.

Another generation may begin to serve at any moment. An applied epoch is one generation's and says nothing of
another's index, so a read keeps to the generation whose head it has read; if that is not the one that its
question was embedded for, it begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ragver import epochs, wire
from ragver.clock import Clock
from ragver.collection import collection_of
from ragver.embedding.registry import Embedders, as_vector, normalised
from ragver.errors import (
    CorpusNotFound,
    EmbeddingUnavailable,
    IndexLagging,
    IndexUnavailable,
    InvalidRequest,
    QueryNotEmbeddable,
)
from ragver.filters import parse
from ragver.index.port import Index, Match, Search
from ragver.ledger import chunks
from ragver.ledger.chunks import ChunkRecord
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.ledger.database import Database
from ragver.liveness import CorpusView, OtherGeneration, Views
from ragver.overlay import CHUNK_ID_LAST, Overlay, Question, Tail, beyond_the_tail, merged, overlay_of, without
from ragver.reading import Asked, Early
from ragver.telemetry import Metrics, logger
from ragver.tokens import Snapshot, SnapshotTokens, fingerprint
from ragver.types import WILDCARD, ChunkId, CorpusId, Epoch, Level

SEARCH_SLACK = 8
"""Matches asked for beyond k, so that a few unconfirmed ones do not cost a second search."""
SEARCH_WIDENING = 4
SEARCH_LIMIT_MAX = 20_000
ATTEMPTS_MAX = 5
"""How often a read is begun anew because something changed under it."""
INDEX_WAIT_STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    tail_rows_max: int
    index_wait_s_max: float


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
        self._tails: WeakKeyDictionary[CorpusView, Tail] = WeakKeyDictionary()

    async def retrieve(self, name: str, request: wire.RetrieveRequest) -> wire.RetrieveResponse:
        """Up to k chunks alive at one epoch that today's access lists let the principals read, best first.

        Raises ``CorpusNotFound``, ``SnapshotExpired``, ``EpochAhead``, ``FilterInvalid``, ``VectorInvalid``,
        ``IndexLagging``, or that a store is unavailable; never returns a thinner result in their place.
        """
        asked = await self._understood(name, request)
        deadline = self._clock.monotonic() + self._limits.index_wait_s_max
        level = request.consistency.level if request.consistency else Level.STRONG
        with self._metrics.retrievals.labels("as_of" if request.as_of else level.value).time():
            while True:
                try:
                    return await self._attempt(name, asked)
                except IndexLagging:
                    if self._clock.monotonic() > deadline:
                        raise
                    await self._clock.sleep(INDEX_WAIT_STEP_S)

    async def _understood(self, name: str, request: wire.RetrieveRequest) -> Asked:
        view = await self._views.get(name)
        info = view.info
        try:
            return await self._fitted(view, request)
        except (InvalidRequest, EmbeddingUnavailable):
            # It may fit another corpus that has taken the name since this process last looked, or the generation
            # that serves now: perhaps it was the end of its model that brought the cut-over.
            now, _ = await self._views.fresh(name)
            if now.info is info:
                raise
            return await self._fitted(now, request)

    async def _fitted(self, view: CorpusView, request: wire.RetrieveRequest) -> Asked:
        info = view.info
        condition = None if request.filter is None else parse(request.filter, info.filterable)
        return Asked(view, info, request, await self._vector(info, request), condition)

    async def _attempt(self, name: str, asked: Asked) -> wire.RetrieveResponse:
        for _ in range(ATTEMPTS_MAX):
            try:
                answer = await self._read(asked)
            except CorpusNotFound:
                # Deleted since this process last looked. There may be another one by that name.
                self._views.forget(name)
                asked, answer = await self._understood(name, asked.request), None
            except OtherGeneration:
                asked, answer = await self._understood(name, asked.request), None
            if answer is not None:
                return answer
        raise IndexLagging("the corpus kept changing during the read; try again")

    async def _read(self, asked: Asked) -> wire.RetrieveResponse | None:
        """One read; None if it has to be begun anew, because what it went by changed before its last step.

        Raises ``OtherGeneration`` if the question has to be embedded anew as well.
        """
        early = self._search_early(asked)
        try:
            committed_by = await epochs.committed_by(self._database, asked.info, asked.request)
            head = await self._head_for(asked)
            epoch = committed_by
            if epoch is None:
                epoch = await epochs.of_level(asked.request, asked.view, head, self._tokens)
            epochs.check(epoch, asked.info, head)
            return await self._completed(_begun(self, asked, epoch, head, early))
        except IndexUnavailable as away:
            return await self._from_the_tail(asked, away)
        finally:
            if early is not None:
                early.discard()

    @staticmethod
    async def _head_for(asked: Asked) -> Head:
        """A fresh head of the generation that the question was embedded for; else ``OtherGeneration``."""
        head = await asked.view.fresh()
        if not asked.meant_for(head):
            raise OtherGeneration
        return head

    async def _completed(self, reading: _Reading) -> wire.RetrieveResponse | None:
        hits = await self._hits(reading)
        if hits is None or not await self._confirmed(reading, len(hits)):
            return None
        return await self._answer(reading, hits)

    async def _from_the_tail(self, asked: Asked, away: IndexUnavailable) -> wire.RetrieveResponse | None:
        """A strong read without the index, if the ledger shows that the index could add nothing; else the error."""
        await self._head_for(asked)  # a generation that no longer serves may have been retired under the read
        for _ in range(ATTEMPTS_MAX if epochs.is_strong(asked.request) else 0):
            head = await self._head_for(asked)
            reading = _Reading(self, asked, head.epoch, head, head, None, tail_alone=True)
            beyond = await beyond_the_tail(self._database, asked.info.corpus_id, reading.question, head.applied)
            if beyond is False:
                return await self._completed(reading)
            if beyond:
                break
        raise away

    @staticmethod
    async def _hits(reading: _Reading) -> list[tuple[Match, ChunkRecord]] | None:
        try:
            return await reading.hits()
        except IndexLagging:
            if reading.basis.applied == reading.head.applied:
                raise
            # The tail is too long since the head that the search went by; since the present one it may not be.
            return None

    def _search_early(self, asked: Asked) -> Early | None:
        """A strong read need not wait for the head to search: what the head says was touched is put right after."""
        request, basis = asked.request, asked.view.last
        if not epochs.is_strong(request) or basis is None or basis.applied == 0 or not asked.meant_for(basis):
            return None
        return Early(basis, asyncio.ensure_future(self._early_matches(asked, basis.epoch)))

    async def _early_matches(self, asked: Asked, epoch: Epoch) -> list[Match]:
        # A turn of the loop later, when the head has been asked for: an embedded engine holds the loop as it searches.
        await asyncio.sleep(0)
        return await self.search(asked.info, asked.at(epoch), asked.request.k + SEARCH_SLACK, may_hold_newer=False)

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
        unit: NDArray[np.float32] = normalised(vector[np.newaxis], generation.distance)[0]
        return unit

    async def overlays(self, reading: _Reading) -> list[Overlay]:
        """What the index cannot be trusted with; the first of two that hold a chunk is right."""
        info, question, head = reading.info, reading.question, reading.head
        tail = await self._tail_for(reading)
        if question.filter is None or head.payload_epoch <= question.epoch:
            return [tail]
        limit, generation = self._limits.tail_rows_max, info.generation
        described = await chunks.redescribed(
            self._database, info.corpus_id, generation.generation_id, question.epoch, limit + 1
        )
        if len(described) > limit:
            raise IndexLagging(f"the metadata of more than {limit} chunks has changed since epoch {question.epoch}")
        return [overlay_of(described, generation.distance, generation.dimensions), tail]

    async def _tail_for(self, reading: _Reading) -> Overlay:
        applied = reading.basis.applied
        try:
            return await self._tail(reading).cover(applied, reading.head.epoch)
        except IndexLagging:
            if reading.question.epoch > applied:
                raise
            return await self._small_tail(reading)

    async def _small_tail(self, reading: _Reading) -> Overlay:
        """What counts of a tail that is too long, for a read of an applied epoch: what was born since does not."""
        info, limit = reading.info, self._limits.tail_rows_max
        changes = await chunks.changes_of_alive(
            self._database,
            info.corpus_id,
            info.generation.generation_id,
            reading.basis.applied,
            reading.question.epoch,
            limit + 1,
        )
        if len(changes) > limit:
            raise IndexLagging(
                f"more than {limit} chunks have changed or died that wait for the indexer; let it catch up"
            )
        return overlay_of(changes, info.generation.distance, info.generation.dimensions)

    def _tail(self, reading: _Reading) -> Tail:
        """The tail of the reading's generation; it is let go of with the view, or when another one is read."""
        view, generation = reading.view, reading.info.generation
        tail = self._tails.get(view)
        if tail is None or tail.generation != generation.generation_id:
            tail = Tail(
                self._database,
                reading.info.corpus_id,
                generation.generation_id,
                generation.distance,
                generation.dimensions,
                self._limits.tail_rows_max,
            )
            self._tails[view] = tail
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

    def dropped(self, reason: str, chunk_id: ChunkId, corpus: CorpusId, epoch: Epoch) -> None:
        """Count a match that the ledger did not confirm."""
        self._metrics.dropped.labels(reason).inc()
        logger.info("match_dropped", reason=reason, chunk_id=chunk_id, corpus_id=corpus, epoch=epoch)

    async def _confirmed(self, reading: _Reading, hits: int) -> bool:
        """The last look at the ledger; False if the read has to be begun anew.

        At the head, an answer that is as full as was asked for needs none.
        """
        question, head = reading.question, reading.head
        full = hits == reading.k and not reading.drops
        if full and question.epoch == head.epoch and question.filter is None:
            return True
        last = await reading.view.fresh()
        epochs.check_horizon(question.epoch, last)
        if last.generation != head.generation or last.applied < reading.basis.applied:
            # The collection was lost and made anew: it may have held next to nothing when it was searched. Of one
            # that no longer serves nobody says whether it was.
            return False
        # A filter may have met metadata that is newer than the epoch.
        return question.filter is None or last.payload_epoch == head.payload_epoch

    async def _answer(self, reading: _Reading, hits: list[tuple[Match, ChunkRecord]]) -> wire.RetrieveResponse:
        epoch, head = reading.question.epoch, reading.head
        snapshot = Snapshot(
            corpus=reading.info.corpus_id,
            epoch=epoch,
            lineage=await reading.view.lineage(epoch),
            chunk_ids=tuple(match.chunk_id for match, _ in hits),
            principals=fingerprint(reading.question.principals),
            issued_at_s=int(self._clock.now().timestamp()),
        )
        return wire.RetrieveResponse(
            snapshot=self._tokens.issue(snapshot),
            epoch=epoch,
            head=head.epoch,
            applied_epoch=head.applied,
            tail=reading.tail_rows,
            hits=[_hit(ref, match, record) for ref, (match, record) in enumerate(hits, 1)],
        )


def _begun(retrieval: Retrieval, asked: Asked, epoch: Epoch, head: Head, early: Early | None) -> _Reading:
    """A reading that goes by the early search, if there was one and it can be used."""
    if early is not None and early.usable(head):
        return _Reading(retrieval, asked, epoch, head, early.basis, early.matches)
    return _Reading(retrieval, asked, epoch, head, head, None)


class _Reading:
    """One read at one epoch: search, overlay, confirm, and search wider while hits are missing."""

    def __init__(
        self,
        retrieval: Retrieval,
        asked: Asked,
        epoch: Epoch,
        head: Head,
        basis: Head,
        early: asyncio.Future[list[Match]] | None,
        *,
        tail_alone: bool = False,
    ) -> None:
        self.view = asked.view
        self.info = asked.info
        self.k = asked.request.k
        self.question = asked.at(epoch)
        self.head = head
        self.basis = basis
        """A head that was read before the search began."""
        self.tail_rows = 0
        self.drops = 0
        self._retrieval = retrieval
        self._early = early
        self._tail_alone = tail_alone or basis.applied == 0
        """The index is not asked: it holds nothing that counts."""

    async def hits(self) -> list[tuple[Match, ChunkRecord]]:
        """Up to k confirmed matches, best first. Raises ``IndexLagging`` if they cannot be told from the rest."""
        limit = self.k + SEARCH_SLACK
        while True:
            found = await self._search(limit)
            # Only now: the tail must be at least as new as what the search may have seen applied.
            candidates = await self._overlaid(found, limit)
            hits = await self._confirmed_of(candidates[:limit])
            if len(hits) >= self.k or max(len(found), len(candidates)) < limit:
                return hits[: self.k]
            if limit >= SEARCH_LIMIT_MAX:
                raise IndexLagging(
                    f"of the {limit} nearest matches nearly all are out of date; let the indexer catch up, "
                    "and reconcile the corpus if that does not help"
                )
            limit = min(limit * SEARCH_WIDENING, SEARCH_LIMIT_MAX)

    async def _search(self, limit: int) -> list[Match]:
        if self._early is not None:
            early, self._early = self._early, None
            return await early
        if self._tail_alone:
            return []
        newer = self.question.epoch < self.basis.applied
        return await self._retrieval.search(self.info, self.question, limit, may_hold_newer=newer)

    async def _overlaid(self, found: Sequence[Match], limit: int) -> list[Match]:
        """The index's matches and the overlays', each chunk from whoever knows it best."""
        overlays = await self._retrieval.overlays(self)
        self.tail_rows = len(overlays[-1])
        distance = self.info.generation.distance
        candidates = without(found, overlays)
        for place, overlay in enumerate(overlays):
            put_aside = overlays[0] if place > 0 else None
            candidates = merged(candidates, overlay.best(self.question, limit, put_aside), distance)
        return candidates

    async def _confirmed_of(self, candidates: Sequence[Match]) -> list[tuple[Match, ChunkRecord]]:
        """What the ledger confirms; the spare candidates beyond k are only looked at when some of the k are dropped."""
        self.drops = 0
        hits = await self._confirm(candidates[: self.k])
        if len(hits) < self.k < len(candidates):
            hits += await self._confirm(candidates[self.k :])
        return hits

    async def _confirm(self, candidates: Sequence[Match]) -> list[tuple[Match, ChunkRecord]]:
        # The ledger's ids end where a damaged index's may not.
        ids = [match.chunk_id for match in candidates if match.chunk_id <= CHUNK_ID_LAST]
        records = await self.view.records_at(ids, self.question.epoch)
        confirmed = [
            (match, record)
            for match in candidates
            if (record := self._allowed(records.get(match.chunk_id), match.chunk_id)) is not None
        ]
        self.drops += len(candidates) - len(confirmed)
        return confirmed

    def _allowed(self, record: ChunkRecord | None, chunk_id: ChunkId) -> ChunkRecord | None:
        """The record, if it may be shown: alive at the epoch, its text still there, readable today."""
        corpus, epoch = self.info.corpus_id, self.question.epoch
        if record is None or record.text is None or not record.alive_at(epoch):
            self._retrieval.dropped("not_alive", chunk_id, corpus, epoch)
            return None
        if not {WILDCARD, *self.question.principals}.intersection(record.acl):
            self._retrieval.dropped("forbidden", chunk_id, corpus, epoch)
            return None
        return record


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
