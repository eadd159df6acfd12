"""A Qdrant server, or a cluster of them, through qdrant-client.

Whoever answers may be slow, gone, or wrong about what it has done. So a write counts only when the server says
that it is completed *and* a count shows what it did: an applied epoch rests on that. All writes may be repeated,
so whatever fails in a way that may pass is tried again, a bounded number of times; then it is ``IndexUnavailable``.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from qdrant_client import models

from ragver.errors import IndexUnavailable, SettingsInvalid
from ragver.filters import Filter
from ragver.index.payload import (
    ACL,
    BORN_EPOCH,
    DIED_EPOCH,
    STAMP_ID,
    TOUCHED_EPOCH,
    Dialect,
    alike,
    as_matrix,
    changeable,
    death,
    deaths_by_epoch,
    fitting,
    indexed_fields,
    never_marked_dead,
    read_stamp,
    stamp_payload,
    stamp_vector,
    stored,
    touched_before,
    translate,
    visible,
)
from ragver.index.port import Collection, Match, Page, Payload, Point, Search, Stamp, StoredPoint
from ragver.index.qdrant_options import Connection, Options, ReadConsistency, reads_see_writes
from ragver.index.qdrant_server import QdrantServer
from ragver.index.scoring import normalised
from ragver.telemetry import logger
from ragver.types import ChunkId, Distance, Epoch, FieldType

BATCH_POINTS_MAX = 128
BATCH_NUMBERS_MAX = 200_000
"""Vector components in one upsert: some 4 MB of JSON, where the server takes 32 MB by default."""
BATCH_IDS_MAX = 1_000
"""Points in one update that names them only."""

T = TypeVar("T")

_DISTANCES = {
    Distance.COSINE: models.Distance.COSINE,
    Distance.DOT: models.Distance.DOT,
    Distance.EUCLID: models.Distance.EUCLID,
    Distance.MANHATTAN: models.Distance.MANHATTAN,
}
_SCHEMAS = {
    FieldType.KEYWORD: models.PayloadSchemaType.KEYWORD,
    FieldType.INTEGER: models.PayloadSchemaType.INTEGER,
    FieldType.FLOAT: models.PayloadSchemaType.FLOAT,
    FieldType.DATETIME: models.PayloadSchemaType.DATETIME,
}
_DIALECT: Dialect[Any] = Dialect(
    group=lambda must, should, must_not: models.Filter(
        must=must or None, should=should or None, must_not=must_not or None
    ),
    equals=lambda path, value: models.FieldCondition(key=path, match=models.MatchValue(value=value)),
    among=lambda path, values: models.FieldCondition(key=path, match=models.MatchAny(any=values)),
    numbers=lambda path, bounds: models.FieldCondition(key=path, range=models.Range(**bounds)),
    times=lambda path, bounds: models.FieldCondition(key=path, range=models.DatetimeRange.model_validate(dict(bounds))),
    empty=lambda path: models.IsEmptyCondition(is_empty=models.PayloadField(key=path)),
)


class QdrantIndex:
    """The index port on a Qdrant server of version ``SERVER_VERSION_MIN`` or newer."""

    def __init__(self, server: QdrantServer, options: Options) -> None:
        """Raises ``SettingsInvalid`` if reads could miss what writes have applied."""
        if not reads_see_writes(options.replication_factor, options.replicas_written, options.read_consistency):
            raise SettingsInvalid(
                "RAGVER_QDRANT_WRITE_CONSISTENCY_FACTOR must equal the replication factor; or be more than half of "
                "it, with RAGVER_QDRANT_READ_CONSISTENCY=majority: a read could miss what the index has applied"
            )
        self._server = server
        self._client = server.client
        self._options = options
        self._ordering = models.WriteOrdering(options.write_ordering)
        self._consistency = _read_consistency(options.read_consistency)
        self._patience_s = math.ceil(options.timeout_s)
        """Told to the server, so that it does not go on with a search that nobody waits for."""

    @classmethod
    def connect(cls, connection: Connection, options: Options) -> QdrantIndex:
        """An index on a server; nothing is sent yet. Raises ``SettingsInvalid``."""
        return cls(QdrantServer.connect(connection, options), options)

    async def check_server(self) -> None:
        """Raise ``IndexUnsupported`` if the server is too old. One that cannot be reached is checked later."""
        try:
            await self._server.check_version()
        except IndexUnavailable as error:
            logger.warning("index_unreachable", detail=error.detail)

    async def ping(self) -> None:
        # Not the version: this needs the key that all other requests need.
        await self._server.read("ping", lambda: self._client.collection_exists("ragver"))

    async def exists(self, collection: Collection) -> bool:
        return await self._server.read("look for", lambda: self._client.collection_exists(collection.name))

    async def ensure(self, collection: Collection) -> bool:
        missing = not await self.exists(collection)
        if missing:
            await self._create(collection)
        found = await self._describe(collection)
        self._require_same(collection, found.config.params)
        for path, schema in _missing_indexes(collection, found).items():
            await self._create_payload_index(collection, path, schema)
        return missing

    async def drop(self, collection: Collection) -> None:
        await self._server.write("drop", lambda: self._client.delete_collection(collection.name))

    async def upsert(self, collection: Collection, points: Sequence[Point]) -> None:
        size = max(1, min(BATCH_POINTS_MAX, BATCH_NUMBERS_MAX // collection.dimensions))
        for batch in _batches(points, size):
            rows = [
                models.PointStruct(
                    id=point.chunk_id, vector=fitting(collection, point.vector), payload=stored(point.payload)
                )
                for point in batch
            ]
            there = _with_ids([point.chunk_id for point in batch])
            await self._write(
                collection, "upsert", self._inserting(collection, rows), there, len({row.id for row in rows})
            )

    async def mark_dead(self, collection: Collection, deaths: Mapping[ChunkId, Epoch]) -> None:
        for epoch, chunk_ids in deaths_by_epoch(deaths):
            await self._set_payload(collection, chunk_ids, never_marked_dead(), death(epoch))

    async def refresh_payload(self, collection: Collection, payloads: Mapping[ChunkId, Payload]) -> None:
        for payload, chunk_ids in alike(payloads):
            await self._set_payload(collection, chunk_ids, touched_before(payload.touched_epoch), changeable(payload))

    async def delete(self, collection: Collection, chunk_ids: Sequence[ChunkId]) -> None:
        for batch in _batches(chunk_ids, BATCH_IDS_MAX):
            await self._write(collection, "delete", self._deleting(collection, batch), _with_ids(batch), 0)

    async def search(self, collection: Collection, search: Search) -> list[Match]:
        vector = fitting(collection, normalised(collection.distance, search.vector))
        wanted = translate(visible(search), _DIALECT)
        answer = await self._server.read(
            "search",
            lambda: self._client.query_points(
                collection.name,
                query=vector,
                query_filter=wanted,
                limit=search.limit,
                with_payload=False,
                with_vectors=False,
                consistency=self._consistency,
                timeout=self._patience_s,
            ),
        )
        return [Match(ChunkId(int(hit.id)), hit.score) for hit in answer.points]

    async def scroll(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        return [_stored_point(record) for record in await self._records(collection, after, limit, with_vectors)]

    async def page(
        self, collection: Collection, after: ChunkId | None, limit: int, *, with_vectors: bool = False
    ) -> Page:
        records = await self._records(collection, after, limit, with_vectors)
        vectors = as_matrix(collection, [record.vector for record in records]) if with_vectors else None
        return Page([int(record.id) for record in records], [record.payload for record in records], vectors)

    async def _records(
        self, collection: Collection, after: ChunkId | None, limit: int, with_vectors: bool
    ) -> list[models.Record]:
        records, _ = await self._server.read(
            "scroll",
            lambda: self._client.scroll(
                collection.name,
                limit=limit,
                offset=(STAMP_ID if after is None else after) + 1,
                with_payload=True,
                with_vectors=with_vectors,
                consistency=self._consistency,
                timeout=self._patience_s,
            ),
        )
        return records

    async def lookup(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], *, with_vectors: bool = False
    ) -> list[StoredPoint]:
        found: list[StoredPoint] = []
        for batch in _batches(chunk_ids, BATCH_IDS_MAX):
            found += map(_stored_point, await self._by_id(collection, batch, with_vectors))
        return found

    async def _by_id(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], with_vectors: bool
    ) -> list[models.Record]:
        return await self._server.read(
            "look up",
            lambda: self._client.retrieve(
                collection.name,
                list(chunk_ids),
                with_payload=True,
                with_vectors=with_vectors,
                consistency=self._consistency,
                timeout=self._patience_s,
            ),
        )

    async def misfits(self, collection: Collection) -> list[str]:
        found = await self._describe(collection)
        try:
            self._require_same(collection, found.config.params)
        except IndexUnavailable as error:
            return [error.detail]
        missing = _missing_indexes(collection, found) if self._server.keeps_payload_indexes else {}
        return [f"the payload index on {path} is missing" for path in missing]

    async def copies(self, collection: Collection) -> str | None:
        # No read would do: one that asks all replicas is told what they all have, and passes over what one has.
        parameters = (await self._describe(collection)).config.params
        replicas, written = parameters.replication_factor or 1, parameters.write_consistency_factor or 1
        if replicas == 1:
            return None
        if written < replicas:
            raise IndexUnavailable(
                f"a deletion in {collection.name} counts when {written} of {replicas} replicas have made it: set its "
                f"write_consistency_factor to {replicas} on the server, to be sure of all"
            )
        states = await self._replica_states(collection)
        odd = sorted({state.value for state in states if state is not models.ReplicaState.ACTIVE})
        if odd:
            raise IndexUnavailable(
                f"a replica of {collection.name} is {', '.join(odd)}: it may still have what was deleted; wait for it"
            )
        return f"all {len(states)} replicas of its shards are active, and a deletion counts when {written} have made it"

    async def _replica_states(self, collection: Collection) -> list[models.ReplicaState]:
        cluster = await self._server.read(
            "look at the replicas of", lambda: self._client.collection_cluster_info(collection.name)
        )
        return [*(shard.state for shard in cluster.local_shards), *(shard.state for shard in cluster.remote_shards)]

    async def stamp(self, collection: Collection, stamp: Stamp, *, replace: bool = False) -> None:
        if replace:
            await self.delete(collection, [STAMP_ID])
        payload = stamp_payload(stamp)
        point = models.PointStruct(id=STAMP_ID, vector=stamp_vector(collection), payload=payload)
        await self._write(collection, "stamp", self._inserting(collection, [point]), _with_ids([STAMP_ID]), 1)
        await self._set_payload(collection, [STAMP_ID], touched_before(stamp.epoch), payload)

    async def stamped(self, collection: Collection) -> Stamp | None:
        return read_stamp(await self.lookup(collection, [STAMP_ID]))

    async def count(self, collection: Collection) -> int:
        return await self._count(collection, models.Filter(must_not=[_has_id([STAMP_ID])]))

    async def close(self) -> None:
        await self._server.close()

    # collections

    async def _describe(self, collection: Collection) -> models.CollectionInfo:
        return await self._server.read("describe", lambda: self._client.get_collection(collection.name))

    async def _create(self, collection: Collection) -> None:
        options = self._options
        try:
            await self._server.write(
                "create",
                lambda: self._client.create_collection(
                    collection.name,
                    vectors_config=models.VectorParams(
                        size=collection.dimensions,
                        distance=_DISTANCES[collection.distance],
                        on_disk=options.on_disk or None,
                    ),
                    shard_number=options.shard_number,
                    replication_factor=options.replication_factor,
                    write_consistency_factor=options.replicas_written,
                    hnsw_config=models.HnswConfigDiff(m=options.hnsw_m, ef_construct=options.hnsw_ef_construct),
                ),
            )
        except IndexUnavailable:
            # An attempt whose answer was lost may have made it, and the next one is then refused.
            if not await self.exists(collection):
                raise

    async def _create_payload_index(self, collection: Collection, path: str, schema: Any) -> None:
        await self._server.write(
            "index",
            lambda: self._client.create_payload_index(
                collection.name, field_name=path, field_schema=schema, wait=True, ordering=self._ordering
            ),
        )

    def _require_same(self, collection: Collection, found: models.CollectionParams) -> None:
        vectors = found.vectors
        if not isinstance(vectors, models.VectorParams) or (vectors.size, vectors.distance) != (
            collection.dimensions,
            _DISTANCES[collection.distance],
        ):
            raise IndexUnavailable(
                f"collection {collection.name} was made for other vectors than {collection.dimensions} numbers "
                f"compared by {collection.distance}; remove it from the Qdrant server to have it rebuilt"
            )
        replicas, written = found.replication_factor or 1, found.write_consistency_factor or 1
        if not reads_see_writes(replicas, written, self._options.read_consistency):
            raise IndexUnavailable(
                f"collection {collection.name} has {replicas} replicas and writes to {written} before it says so: "
                f"a read could miss what was applied. Set its write_consistency_factor to {replicas} on the server"
            )

    # writes

    def _inserting(
        self, collection: Collection, rows: list[models.PointStruct]
    ) -> Callable[[], Awaitable[models.UpdateResult]]:
        return lambda: self._client.upsert(
            collection.name,
            points=rows,
            wait=True,
            ordering=self._ordering,
            update_mode=models.UpdateMode.INSERT_ONLY,
        )

    def _deleting(
        self, collection: Collection, chunk_ids: Sequence[ChunkId]
    ) -> Callable[[], Awaitable[models.UpdateResult]]:
        selected = models.PointIdsList(points=list(chunk_ids))
        return lambda: self._client.delete(collection.name, selected, wait=True, ordering=self._ordering)

    async def _set_payload(
        self, collection: Collection, chunk_ids: Sequence[ChunkId], where: Filter, change: dict[str, Any]
    ) -> None:
        # By filter, since it must pass over the points that are gone or already newer.
        for batch in _batches(chunk_ids, BATCH_IDS_MAX):
            due = models.Filter(must=[_has_id(batch), translate(where, _DIALECT)])
            await self._write(collection, "update", self._setting(collection, due, change), due, 0)

    def _setting(
        self, collection: Collection, due: models.Filter, change: dict[str, Any]
    ) -> Callable[[], Awaitable[models.UpdateResult]]:
        return lambda: self._client.set_payload(
            collection.name, payload=change, points=due, wait=True, ordering=self._ordering
        )

    async def _write(
        self,
        collection: Collection,
        what: str,
        write: Callable[[], Awaitable[models.UpdateResult]],
        concerned: models.Filter,
        expected: int,
    ) -> None:
        """Write, and see that as many points as expected meet `concerned` afterwards."""
        answer = await self._server.write(what, write)
        if answer.status != models.UpdateStatus.COMPLETED:
            raise IndexUnavailable(f"the Qdrant server answered a write with {answer.status}: it is not applied yet")
        found = await self._count(collection, concerned)
        if found != expected:
            raise IndexUnavailable(
                f"the Qdrant server says that the {what} on {collection.name} is completed, "
                f"but {found} points are so where {expected} should be"
            )

    async def _count(self, collection: Collection, concerned: models.Filter | None) -> int:
        answer = await self._server.read(
            "count",
            lambda: self._client.count(
                collection.name,
                count_filter=concerned,
                exact=True,
                timeout=self._patience_s,
                # qdrant-client's local mode has no such argument here.
                **({} if self._consistency is None else {"consistency": self._consistency}),
            ),
        )
        return answer.count


def _read_consistency(read: ReadConsistency | None) -> models.ReadConsistency | None:
    return models.ReadConsistencyType(read) if isinstance(read, str) else read


def _payload_indexes(collection: Collection) -> dict[str, Any]:
    """What to index, by path. Epochs are only ever compared; `touched_epoch` is indexed because a server in
    strict mode refuses updates by a field that is not."""
    epoch = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True)
    plain = {path: _SCHEMAS[kind] for path, kind in indexed_fields(collection).items()}
    return {
        **plain,
        BORN_EPOCH: epoch,
        DIED_EPOCH: epoch,
        TOUCHED_EPOCH: epoch,
        # Keeps together on disk what one label may read.
        ACL: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    }


def _missing_indexes(collection: Collection, found: models.CollectionInfo) -> dict[str, Any]:
    """The payload indexes that are not there, or are of another type."""
    there = {path: index.data_type for path, index in found.payload_schema.items()}
    return {
        path: schema for path, schema in _payload_indexes(collection).items() if there.get(path) != _schema_type(schema)
    }


def _schema_type(schema: Any) -> str:
    return str(schema.value if isinstance(schema, models.PayloadSchemaType) else schema.type.value)


def _has_id(chunk_ids: Sequence[ChunkId]) -> models.HasIdCondition:
    return models.HasIdCondition(has_id=list(chunk_ids))


def _with_ids(chunk_ids: Sequence[ChunkId]) -> models.Filter:
    return models.Filter(must=[_has_id(chunk_ids)])


def _stored_point(record: models.Record) -> StoredPoint:
    vector = None if record.vector is None else np.asarray(record.vector, dtype=np.float32)
    return StoredPoint(ChunkId(int(record.id)), record.payload or {}, vector)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
