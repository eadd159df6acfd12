"""Every kind of drift, planted at random places of a real index; and an index in whose calls a test can step in."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ragver import wire
from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.collection import payload_of
from ragver.index.edge_engine import edge
from ragver.index.port import Collection, Index, Match, Page, Payload, Point, Search
from ragver.index.scoring import normalised
from ragver.indexer import Indexer
from ragver.ledger import chunks
from ragver.ledger.chunks import Change
from ragver.reconciler.service import Reconciler
from ragver.telemetry import Metrics
from ragver.types import ChunkId, DocumentId, DriftKind, Epoch, RunState
from tests.support.ledger import query
from tests.support.services import CORPUS
from tests.support.spine import collection

WAIT_S = 60.0
POINT_KINDS = [kind for kind in DriftKind if kind is not DriftKind.MISCONFIGURED]

Step = Callable[[], Awaitable[object]]
Planted = dict[DriftKind, set[int]]


class Meddled:
    """An index in front of another one: it can hide points from searches, and lets a test step in."""

    def __init__(self, inner: Index) -> None:
        self.inner = inner
        self.hidden: set[int] = set()
        """Found by no search until they are written anew, as if the graph had lost them."""
        self.before_page: Step | None = None
        """Taken once, by the next page."""
        self.before_upsert: Step | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def search(self, collection: Collection, search: Search) -> list[Match]:
        return [match for match in await self.inner.search(collection, search) if match.chunk_id not in self.hidden]

    async def delete(self, collection: Collection, chunk_ids: Sequence[ChunkId]) -> None:
        await self.inner.delete(collection, chunk_ids)
        self.hidden -= set(chunk_ids)

    async def page(self, collection: Collection, after: ChunkId | None, limit: int, **how: Any) -> Page:
        step, self.before_page = self.before_page, None
        if step is not None:
            await step()
        found: Page = await cast(Any, self.inner).page(collection, after, limit, **how)
        return found

    async def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        step, self.before_upsert = self.before_upsert, None
        if step is not None:
            await step()
        await self.inner.upsert(collection, points)


def meddled(services: Services) -> tuple[Services, Meddled]:
    """The same services with a reconciler on an index in which a test can meddle."""
    index = Meddled(services.index)
    indexer = Indexer(services.database, cast(Index, index), services.builder, SystemClock(), 0.005, Metrics())
    reconciler = Reconciler(services.database, cast(Index, index), indexer.apply, SystemClock(), Metrics())
    return replace(services, reconciler=reconciler), index


async def reconcile(services: Services, corpus: str = CORPUS, **request: Any) -> wire.Reconciliation:
    """A reconciliation, to its end."""
    run = await services.reconciler.start(corpus, wire.ReconciliationRequest(**request), WAIT_S)
    assert run.state is not RunState.RUNNING, f"no end after {WAIT_S} s"
    return run


def found(run: wire.Reconciliation) -> Planted:
    """The chunks of a run's findings, by kind."""
    kinds: Planted = {}
    for finding in run.findings:
        kinds.setdefault(finding.kind, set()).add(int(finding.chunk_id or 0))
    return kinds


class Injector:
    """Plants drift; every chunk is spoilt in one way at most."""

    def __init__(self, services: Services, index: Meddled, seed: int) -> None:
        self._services = services
        self._index = index
        self._random = random.Random(seed)
        self._changes: dict[ChunkId, Change] = {}
        self._left: list[ChunkId] = []
        self.planted: Planted = {}

    async def plant(self, each: int) -> Planted:
        """So many points of every kind, and a payload index less."""
        await self._survey()
        for kind in POINT_KINDS:
            self.planted[kind] = set()
            for number in range(each):
                self.planted[kind].add(await self._spoil(kind, number))
        await self._unindex()
        self.planted[DriftKind.MISCONFIGURED] = {0}
        return self.planted

    async def _survey(self) -> None:
        info = (await self._services.views.get(CORPUS)).info
        self._collection = await collection(self._services)
        rows = await query(self._services.database.url, "SELECT id FROM chunk ORDER BY id")
        ids = [ChunkId(row["id"]) for row in rows]
        self._changes = await chunks.changes_of(
            self._services.database, info.corpus_id, info.generation.generation_id, ids
        )
        self._left = self._random.sample(ids, len(ids))

    def _take(self, *, dead: bool, pointing: bool = False) -> Change:
        """A chunk that is not spoilt yet; `pointing`: with a vector that is not zero, to which all are equally near."""
        for place, chunk_id in enumerate(self._left):
            change = self._changes[chunk_id]
            assert change.vector is not None
            if (change.died_epoch is not None) is dead and (change.vector.any() or not pointing):
                return self._changes[self._left.pop(place)]
        raise AssertionError("the history is too short to spoil so much")

    async def _spoil(self, kind: DriftKind, number: int) -> ChunkId:
        dead = bool(number % 2)
        match kind:
            case DriftKind.ORPHAN:
                return await self._orphan(number)
            case DriftKind.MISSING:
                change = self._take(dead=dead)
                await self._index.inner.delete(self._collection, [change.chunk_id])
            case DriftKind.ZOMBIE:
                change = self._take(dead=True)
                await self._put(change, replace(self._payload(change), died_epoch=None))
            case DriftKind.BURIED:
                change = self._take(dead=dead)
                died = (change.died_epoch or 2) + self._random.choice([-1, 1])
                await self._put(change, replace(self._payload(change), died_epoch=Epoch(died)))
            case DriftKind.STALE_PAYLOAD:
                change = self._take(dead=dead)
                await self._stale(change, number)
            case DriftKind.VECTOR_MISMATCH:
                change = self._take(dead=dead)
                await self._put(change, self._payload(change), other_vector=True)
            case DriftKind.UNREACHABLE:
                change = self._take(dead=dead, pointing=True)
                self._index.hidden.add(change.chunk_id)
            case DriftKind.MISCONFIGURED:
                raise AssertionError("not of a point")
        return change.chunk_id

    async def _orphan(self, number: int) -> ChunkId:
        """Below all chunks, or far above them; marked dead or not."""
        chunk_id = ChunkId(self._random.randrange(1, 90_000) if number % 2 else self._random.randrange(10**9, 10**12))
        died = Epoch(2) if number % 3 else None
        payload = Payload(DocumentId(10**6), Epoch(1), died, Epoch(1), ["*"], {})
        await self._index.inner.upsert(self._collection, [Point(chunk_id, self._vector(), payload)])
        return chunk_id

    async def _stale(self, change: Change, number: int) -> None:
        right = self._payload(change)
        wrong: list[Payload] = [
            replace(right, acl=["user:nobody"]),
            replace(right, acl=["user:nobody"], touched_epoch=Epoch(0)),
            replace(right, touched_epoch=Epoch(change.touched_epoch + 10**6)),
            replace(right, born_epoch=Epoch(change.born_epoch + 1)),
            replace(right, document_id=DocumentId(change.document_id + 10**6)),
            replace(right, metadata={"year": 1066}),
        ]
        if number % (len(wrong) + 1) == len(wrong):
            await self._garble(change)
        else:
            await self._put(change, wrong[number % (len(wrong) + 1)])

    async def _garble(self, change: Change) -> None:
        """A payload that no version of the program has written."""
        shard = cast(Any, self._index.inner)._shards[self._collection.name]
        payload = {"acl": "*", "meta": [None], "stray": True}
        shard._update(edge.UpdateOperation.set_payload([change.chunk_id], payload), [change.chunk_id])

    async def _put(self, change: Change, payload: Payload, *, other_vector: bool = False) -> None:
        assert change.vector is not None
        vector = self._vector() if other_vector else change.vector
        await self._index.inner.delete(self._collection, [change.chunk_id])
        await self._index.inner.upsert(self._collection, [Point(change.chunk_id, vector, payload)])

    async def _unindex(self) -> None:
        shard = cast(Any, self._index.inner)._shards[self._collection.name]
        shard._engine.update(edge.UpdateOperation.delete_field_index("born_epoch"))

    def _payload(self, change: Change) -> Payload:
        return payload_of(self._collection, change)

    def _vector(self) -> Any:
        generator = np.random.default_rng(self._random.randrange(2**32))
        made = generator.standard_normal(self._collection.dimensions).astype(np.float32)
        return normalised(self._collection.distance, made)
