"""Erases documents for good, from both stores, and does not say so before it has looked.

The commit takes everything out of the ledger at once. The index follows: the points of the erased chunks are removed
from every generation and then looked for by every way there is. What is not there yet, because a store is away or the
indexer may still carry what it read before, is `pending`, and a worker comes back to it until it is done.

An erasure is complete when, for each generation, the indexer has passed the erasure's epoch, so that nothing read
before it is on its way any more, and the look afterwards found nothing. A leader that was paused and outlived its term
could still write later; it takes that back itself (``Indexer.apply``), and the worker looks again for a day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from ragver import absence, wire
from ragver.absence import Probe
from ragver.clock import Clock
from ragver.collection import collection_of
from ragver.errors import RagverError, Unavailable
from ragver.index.port import Collection, Index
from ragver.ledger import erasing, erasures, generations
from ragver.ledger.database import Database
from ragver.ledger.erasures import Erasure
from ragver.ledger.generations import Standing
from ragver.liveness import Views
from ragver.receipts import ReceiptSigner
from ragver.telemetry import Metrics, logger
from ragver.wire.erasure import StoreState

PATIENCE_S_MAX = 10.0
"""How long a request waits for an erasure to become complete before it answers that it is pending."""
PATIENCE_STEP_S = 0.05
WORK_S = 2.0
"""How often the worker comes back to what is pending."""
SECOND_LOOK_S = 300.0
"""How often it looks again at what was completed lately."""
LATE_WRITER_S_MAX = 86_400.0
"""For how long after its completion an erasure is looked at again."""
ROUND_ERASURES_MAX = 1_000

LEFT = "something is left, or has come back; it will be removed again"
NOT_COVERED = (
    ("backups, standbys and log archives of PostgreSQL", "let them expire, or restore, erase again and replace them"),
    (
        "PostgreSQL's own files: dead rows until VACUUM FULL, its write-ahead log until a checkpoint removes it",
        "`ragver gc --full`, or the same steps by the database's administrator",
    ),
    (
        "the index's own files: segments keep deleted points until they are rewritten, its log until it is cut",
        "`ragver gc --full` for the embedded index; for a Qdrant server rebuild the index into a new collection",
    ),
    ("snapshots and backups of the index", "delete them"),
    ("answers that were released before, and what clients and models keep of them", "see the corpus's recalls"),
    ("an embedding service that was sent the texts", "ask who runs it"),
    ("reasons and actors in the log that name persons in other words than the keys", "they stay: name no persons"),
)
KEYS_STAY = ("the documents' keys, in versions and in the log", "erase again with `keys_too`")
_CACHES = wire.StoreReceipt(
    store="caches",
    state="erased",
    verified_by=["records and tails of the process that erased were let go"],
    detail="every other process lets go of its own with its next read of the corpus",
)


class Erasures:
    """Erasures of every corpus of the ledger."""

    def __init__(
        self,
        database: Database,
        index: Index,
        views: Views,
        clock: Clock,
        signer: ReceiptSigner,
        metrics: Metrics,
        committed: Callable[[], None] = lambda: None,
        patience_s: float = PATIENCE_S_MAX,
    ) -> None:
        self._database = database
        self._index = index
        self._views = views
        self._clock = clock
        self._signer = signer
        self._metrics = metrics
        self._committed = committed
        self._patience_s = patience_s
        self._second_look_at_s = 0.0
        self._probes: dict[int, dict[str, list[Probe]]] = {}
        """Where points were that this process has removed, by erasure and collection."""

    @property
    def key(self) -> wire.ReceiptKey:
        """What the receipts can be checked with."""
        return self._signer.public

    async def erase(self, name: str, request: wire.ErasureRequest) -> wire.ErasureReceipt:
        """Erase every version of every document that ever lived under these keys.

        When this returns, the ledger is done and no verdict from before can still be acted on; the receipt says
        whether the index is done too. Raises ``CorpusNotFound`` or ``DocumentNotFound``, and then nothing was erased.
        """
        view, _ = await self._views.fresh(name)
        erasure = await erasing.commit(self._database, view.info.corpus_id, request)
        fenced_at_s = self._clock.monotonic() + view.info.fence_s
        logger.info("erased", corpus=name, erasure=erasure.erasure_id, epoch=erasure.epoch)
        # With the view go the records and the tails of this process.
        self._views.forget(name)
        self._committed()
        deadline = self._clock.monotonic() + self._patience_s
        while not await self._advance(erasure) and self._clock.monotonic() < deadline:
            await self._clock.sleep(PATIENCE_STEP_S)
        await self._clock.sleep(max(0.0, fenced_at_s - self._clock.monotonic()))
        return await self.get(name, erasure.erasure_id)

    async def get(self, name: str, erasure_id: int) -> wire.ErasureReceipt:
        """The receipt as it is now. Raises ``ErasureNotFound``."""
        return self._receipt(await self._erasure(name, erasure_id))

    async def all(self, name: str) -> list[wire.ErasureReceipt]:
        """The receipts of a corpus, newest first."""
        view, _ = await self._views.fresh(name)
        return [self._receipt(erasure) for erasure in await erasures.all_of(self._database, view.info.corpus_id)]

    async def check(self, name: str, erasure_id: int) -> wire.ErasureCheck:
        """Look at the stores again, and change nothing. Raises ``ErasureNotFound``."""
        erasure = await self._erasure(name, erasure_id)
        stores = await self._looked(erasure)
        erased = all(store.state != "pending" for store in stores)
        return wire.ErasureCheck(id=str(erasure_id), erased=erased, stores=stores)

    async def _erasure(self, name: str, erasure_id: int) -> Erasure:
        view, _ = await self._views.fresh(name)
        return await erasures.get(self._database, view.info.corpus_id, erasure_id)

    async def run(self) -> None:
        """Complete what is pending, and look again at what was completed lately, until cancelled."""
        while True:
            await self._clock.sleep(WORK_S)
            try:
                await self.work()
            except RagverError as error:
                logger.warning("erasures_wait", code=error.code, detail=error.detail)

    async def work(self) -> None:
        """One round over everything that is not done."""
        waiting = await erasures.pending(self._database, ROUND_ERASURES_MAX)
        self._metrics.erasures_pending.set(len(waiting))
        for erasure in waiting:
            if await self._advance(erasure):
                logger.info("erasure_complete", corpus=erasure.corpus_name, erasure=erasure.erasure_id)
        if self._clock.monotonic() >= self._second_look_at_s:
            for erasure in await erasures.recent(self._database, LATE_WRITER_S_MAX, ROUND_ERASURES_MAX):
                await self._look_again(erasure)
            self._second_look_at_s = self._clock.monotonic() + SECOND_LOOK_S

    async def _look_again(self, erasure: Erasure) -> None:
        stores = await self._looked(erasure)
        back = [store.store for store in stores if store.state == "pending" and store.detail == LEFT]
        if back:
            logger.error("erasure_undone", corpus=erasure.corpus_name, erasure=erasure.erasure_id, stores=back)
            self._metrics.erasures_undone.inc()
            await self._remove(erasure)

    # removing

    async def _advance(self, erasure: Erasure) -> bool:
        """Remove what is still there and look whether anything is left; whether the erasure is complete now."""
        await self._remove(erasure)
        stores = await self._looked(erasure)
        complete = all(store.state != "pending" for store in stores)
        await erasures.note(self._database, erasure, stores, complete=complete)
        if complete:
            self._probes.pop(erasure.erasure_id, None)
        return complete

    async def _remove(self, erasure: Erasure) -> None:
        if not (await erasures.remains(self._database, erasure)).none:
            await erasures.drop_vectors(self._database, erasure)
        for standing in await generations.of_corpus(self._database, erasure.corpus):
            # A store that is away is told by the look that follows, in the receipt.
            with suppress(Unavailable):
                await self._remove_points(erasure, collection_of(standing))

    async def _remove_points(self, erasure: Erasure, collection: Collection) -> None:
        if not await self._index.exists(collection):
            return
        kept = self._probes.setdefault(erasure.erasure_id, {})
        # Before they go: where they were is what they are searched by afterwards.
        found = await absence.probes_of(self._index, collection, erasure.chunk_ids)
        kept[collection.name] = [*found, *kept.get(collection.name, ())][: absence.PROBES_MAX]
        await self._index.delete(collection, erasure.chunk_ids)

    # looking

    async def _looked(self, erasure: Erasure) -> list[wire.StoreReceipt]:
        """What each store says, looked at now."""
        standings = await generations.of_corpus(self._database, erasure.corpus)
        leftovers = await erasures.leftovers(self._database, erasure.corpus)
        return [
            await self._ledger(erasure),
            _CACHES,
            *[await self._generation(erasure, standing) for standing in standings],
            *map(_leftover, leftovers),
        ]

    async def _ledger(self, erasure: Erasure) -> wire.StoreReceipt:
        left = await erasures.remains(self._database, erasure)
        if not left.none:
            return wire.StoreReceipt(store="ledger", state="pending", verified_by=[], detail=LEFT)
        ways = [
            f"texts and content hashes of {len(erasure.chunk_ids)} chunks read back",
            "vectors of these chunks looked for in every generation, past ones included",
            f"titles, addresses and metadata of {erasure.versions} versions read back",
        ]
        if erasure.keys_too:
            ways.append("keys of these versions read back")
        return wire.StoreReceipt(store="ledger", state="erased", verified_by=ways)

    async def _generation(self, erasure: Erasure, standing: Standing) -> wire.StoreReceipt:
        try:
            return await self._seen(erasure, standing)
        except Unavailable as error:
            return _of_index(standing.generation.collection, "pending", (), f"{error.code}: {error.detail}")

    async def _seen(self, erasure: Erasure, standing: Standing) -> wire.StoreReceipt:
        collection = collection_of(standing)
        if not await self._index.exists(collection):
            return _of_index(collection.name, "not_applicable", ("the collection is not there",), None)
        probes = self._probes.get(erasure.erasure_id, {}).get(collection.name, ())
        look = await absence.look(self._index, collection, erasure.chunk_ids, probes, erasure.epoch)
        if look.found:
            return _of_index(collection.name, "pending", (), LEFT)
        if standing.applied < erasure.epoch:
            detail = f"the indexer is at epoch {standing.applied} and has to pass {erasure.epoch}"
            return _of_index(collection.name, "pending", (), detail)
        return _of_index(collection.name, "erased", look.ways, None)

    def _receipt(self, erasure: Erasure) -> wire.ErasureReceipt:
        more = () if erasure.keys_too else (KEYS_STAY,)
        return self._signer.signed(
            id=str(erasure.erasure_id),
            corpus=erasure.corpus_name,
            epoch=erasure.epoch,
            state="pending" if erasure.completed_at is None else "complete",
            keys=list(erasure.keys),
            keys_too=erasure.keys_too,
            documents=len(erasure.document_ids),
            versions=erasure.versions,
            chunks=len(erasure.chunk_ids),
            reason=erasure.reason,
            actor=erasure.actor,
            committed_at=erasure.committed_at,
            completed_at=erasure.completed_at,
            stores=list(erasure.stores),
            not_covered=[wire.NotCovered(what=what, close_by=close_by) for what, close_by in (*NOT_COVERED, *more)],
        )


def _of_index(collection: str, state: StoreState, ways: Sequence[str], detail: str | None) -> wire.StoreReceipt:
    return wire.StoreReceipt(store=f"index:{collection}", state=state, verified_by=list(ways), detail=detail)


def _leftover(collection: str) -> wire.StoreReceipt:
    return _of_index(collection, "pending", (), "it belonged to an earlier generation and is still to be dropped")
