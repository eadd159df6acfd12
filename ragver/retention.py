"""Moves the horizon, and removes what no snapshot can see any more.

The horizon moves first, in a commit of its own: whoever reads behind it is told so from then on, also in mid-read.
Then the points of the chunks that died at or before it leave the index, and only then their texts and vectors leave
the ledger: killed anywhere, the next collection finds in the ledger what is still to do. Tombstones stay for ever.

An indexer may be on its way with such a chunk, which it has read with its vector. If it inserts the point after we
have deleted it, and looks for the vector before we have removed it, the point would stay for good. So nothing is
removed that the serving generation has not applied, and points are deleted once more at the end: whoever inserts one
later than that finds its vector gone, and takes it back (``Indexer.apply``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragver import wire
from ragver.clock import Clock
from ragver.collection import collection_of
from ragver.errors import CollectionRunning, CorpusNotFound, RagverError
from ragver.index.port import Collection, Compactable, Index
from ragver.ledger import answers, corpora, generations, retention, scrubbing
from ragver.ledger.corpora import CorpusInfo
from ragver.ledger.database import Database
from ragver.ledger.retention import Horizon
from ragver.liveness import Views
from ragver.telemetry import Metrics, logger
from ragver.tokens import SnapshotTokens
from ragver.types import ChunkId, CorpusId, Epoch

BATCH_CHUNKS_MAX = 1_000
"""Chunks removed in one step."""
BATCH_ANSWERS_MAX = 1_000
"""Recorded answers removed in one step."""

NOT_COMPACTABLE = (
    "a Qdrant server rewrites its segments by itself, some time; to be sure, rebuild the index into a new collection"
)


class Pins:
    """Epochs that are held readable beyond the retention."""

    def __init__(self, database: Database, views: Views, tokens: SnapshotTokens) -> None:
        self._database = database
        self._views = views
        self._tokens = tokens

    async def add(self, name: str, request: wire.PinRequest) -> wire.Pin:
        """Hold an epoch. Raises ``SnapshotExpired``, ``EpochAhead``, ``TooManyPins`` or what the token deserves."""
        view, _ = await self._views.fresh(name)
        corpus = view.info.corpus_id
        if request.snapshot is not None:
            snapshot = self._tokens.read(request.snapshot, corpus)
            await view.require(snapshot)
            epoch = snapshot.epoch
        else:
            assert request.epoch is not None
            epoch = Epoch(request.epoch)
        return await retention.pin(self._database, corpus, epoch, request.ttl_s)

    async def remove(self, name: str, pin_id: int) -> None:
        """Let go. Raises ``PinNotFound``."""
        await retention.unpin(self._database, await self._corpus(name), pin_id)

    async def all(self, name: str) -> list[wire.Pin]:
        """The pins that hold now, the oldest epoch first."""
        return await retention.pins(self._database, await self._corpus(name))

    async def _corpus(self, name: str) -> CorpusId:
        view, _ = await self._views.fresh(name)
        return view.info.corpus_id


class Retention:
    """Collects: any number of processes may, and one at a time does so in a corpus."""

    def __init__(
        self,
        database: Database,
        index: Index,
        clock: Clock,
        interval_s: float,
        answers_kept_s: int,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._index = index
        self._clock = clock
        self._interval_s = interval_s
        self._answers_kept_s = answers_kept_s
        self._metrics = metrics

    async def run(self) -> None:
        """Collect in every corpus, again and again, until cancelled."""
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                await self._round()
            except RagverError as error:
                logger.warning("gc_waits", code=error.code, detail=error.detail)

    async def _round(self) -> None:
        for info in await corpora.all_of(self._database):
            try:
                await self._collect(info)
            except (CorpusNotFound, CollectionRunning):
                continue
            except RagverError as error:
                # The next corpus's index may be there.
                logger.warning("gc_failed", corpus=info.name, code=error.code, detail=error.detail)

    async def collect(self, name: str, *, full: bool = False) -> wire.GcResult:
        """Move the horizon and remove everything behind it.

        With `full`, both stores' files are rewritten without what was removed, by retention or by an erasure: each
        table is locked meanwhile, and the other corpora of the ledger wait too.

        Raises ``CorpusNotFound``, ``CollectionRunning``, or that a store is unavailable; what was done until then
        stays done, and the next collection goes on from there.
        """
        return await self._collect(await corpora.get(self._database, name), full=full)

    async def _collect(self, info: CorpusInfo, *, full: bool = False) -> wire.GcResult:
        async with retention.collector(self._database, info.corpus_id) as alone:
            if not alone:
                raise CollectionRunning(f"another process removes what has passed the horizon of {info.name!r}")
            forgotten = await self._forget_answers(info.corpus_id)
            horizon = await retention.move_horizon(self._database, info.corpus_id)
            removed = await self._remove_behind(info.corpus_id, horizon)
            given_back = await self._give_back(info.corpus_id) if full else {}
        if removed or horizon.now != horizon.before:
            logger.info("gc_done", corpus=info.name, horizon=horizon.now, chunks=removed)
        self._metrics.collected.labels(info.name).inc(removed)
        self._metrics.collection_time.labels(info.name).set_to_current_time()
        return wire.GcResult(
            corpus=info.name,
            head=horizon.head,
            horizon_before=horizon.before,
            horizon=horizon.now,
            chunks=removed,
            answers=forgotten,
            pins=len(await retention.pins(self._database, info.corpus_id)),
            **given_back,
        )

    async def _give_back(self, corpus: CorpusId) -> dict[str, Any]:
        """Rewrite the files of both stores; as fields of the result."""
        steps = [await self._compact(collection) for collection in await self._collections(corpus)]
        before = await scrubbing.size(self._database)
        steps += await scrubbing.scrub(self._database)
        return {"full": steps, "ledger_bytes_before": before, "ledger_bytes": await scrubbing.size(self._database)}

    async def _compact(self, collection: Collection) -> wire.GcStep:
        step = f"index: rewrite {collection.name}"
        if not isinstance(self._index, Compactable):
            return wire.GcStep(step=step, done=False, seconds=0.0, detail=NOT_COMPACTABLE)
        started_s = self._clock.monotonic()
        if await self._index.exists(collection):
            await self._index.compact(collection)
        return wire.GcStep(step=step, done=True, seconds=round(self._clock.monotonic() - started_s, 3))

    async def _forget_answers(self, corpus: CorpusId) -> int:
        forgotten = 0
        while batch := await answers.forget(self._database, corpus, self._answers_kept_s, BATCH_ANSWERS_MAX):
            forgotten += batch
        return forgotten

    async def _remove_behind(self, corpus: CorpusId, horizon: Horizon) -> int:
        removed = 0
        collections = await self._collections(corpus)
        while chunk_ids := await retention.removable(self._database, corpus, horizon.now, BATCH_CHUNKS_MAX):
            await self._remove_points(collections, chunk_ids)
            removed += await retention.remove(self._database, corpus, horizon.now, chunk_ids)
            await self._remove_points(collections, chunk_ids)
        return removed

    async def _collections(self, corpus: CorpusId) -> list[Collection]:
        """Where the corpus may have points: in every generation, those that no longer serve included."""
        return [collection_of(standing) for standing in await generations.of_corpus(self._database, corpus)]

    async def _remove_points(self, collections: Sequence[Collection], chunk_ids: Sequence[ChunkId]) -> None:
        for collection in collections:
            if await self._index.exists(collection):
                await self._index.delete(collection, chunk_ids)
