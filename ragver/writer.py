"""From operations to a commit: cut, hash, embed what is new, then the ledger."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ragver import wire
from ragver.clock import Clock
from ragver.embedding.registry import Embedders, as_vector, normalised
from ragver.errors import (
    CommitContention,
    CorpusNotFound,
    DocumentTooLarge,
    EmbeddingUnavailable,
    IdempotencyKeyReused,
    InvalidRequest,
    VectorInvalid,
)
from ragver.filters import check_metadata
from ragver.ledger import commits
from ragver.ledger.chain import REDACTED
from ragver.ledger.commits import Before, Logged, Record
from ragver.ledger.corpora import CorpusInfo
from ragver.ledger.database import Connection, Database
from ragver.ledger.plan import DocumentPlan, Piece, PreparedOperation, PreparedPut, plan
from ragver.ledger.statistics import Growth
from ragver.liveness import OtherGeneration, Views
from ragver.splitting import split
from ragver.telemetry import Metrics, Stages
from ragver.types import CorpusId

OPTIMISTIC_ATTEMPTS = 2
"""Commits tried without the lock before a writer who keeps being overtaken takes it."""
LOCKED_ATTEMPTS_MAX = 8
GENERATIONS_MAX = 4
"""How many generations a commit is prepared for, one after the other, when each is cut over before it is written."""
THREAD_ABOVE_CHARACTERS = 50_000
"""Longer texts are cut outside the event loop."""
EMBED_BATCH_TEXTS = 256

_operations = TypeAdapter(list[wire.Operation])


@dataclass(slots=True)
class _Work:
    """A request on its way into the ledger; the vectors gathered for it outlive a lost race."""

    info: CorpusInfo
    operations: list[PreparedOperation]
    record: Record
    vectors: dict[bytes, NDArray[np.float32]]
    stages: Stages

    @property
    def has_puts(self) -> bool:
        return any(isinstance(operation, PreparedPut) for operation in self.operations)

    @property
    def keys(self) -> set[str]:
        named: set[str] = set()
        for operation in self.operations:
            match operation:
                case PreparedPut():
                    named.add(operation.put.key)
                case wire.Rename():
                    named |= {operation.key, operation.new_key}
                case _:
                    named.add(operation.key)
        return named


class Writer:
    """The only way into a corpus."""

    def __init__(
        self,
        database: Database,
        views: Views,
        embedders: Embedders,
        clock: Clock,
        document_bytes_max: int,
        metrics: Metrics,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._views = views
        self._embedders = embedders
        self._clock = clock
        self._document_bytes_max = document_bytes_max
        self._metrics = metrics
        self._committed = committed
        self._growth = Growth(database)

    async def commit(
        self,
        name: str,
        request: wire.CommitRequest,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        stages: Stages | None = None,
    ) -> wire.CommitResult:
        """Apply the operations as one commit and answer with its epoch.

        The log keeps `actor`, or what the request says if none is given: who sent a request is no part of it, so
        the same `idempotency_key` with the same request is applied once and answered the same, also where the
        request would no longer fit. With `fence`, returns only when no verdict from before the commit can
        still be acted on. Raises what the operations deserve, and then nothing was written.
        """
        stages = stages or Stages()
        try:
            logged, replayed, info = await self._commit(name, request, actor, idempotency_key, stages)
        except CorpusNotFound:
            self._views.forget(name)
            logged, replayed, info = await self._commit(name, request, actor, idempotency_key, stages)
        self._committed()
        if not replayed:
            await self._growth.add(sum(document.chunks_added for document in logged.documents))
        if fence:
            with stages.stage("fence"):
                await self._clock.sleep(info.fence_s)
        for stage, seconds in stages.seconds.items():
            self._metrics.commit_seconds.labels(stage).observe(seconds)
        return wire.CommitResult(
            epoch=logged.epoch,
            committed_at=logged.committed_at,
            replayed=replayed,
            fenced=fence,
            documents=logged.documents,
        )

    async def _commit(
        self, name: str, request: wire.CommitRequest, actor: str | None, idempotency_key: str | None, stages: Stages
    ) -> tuple[Logged, bool, CorpusInfo]:
        record = Record(actor or request.actor, request.reason, idempotency_key, _request_hash(request))
        for _ in range(GENERATIONS_MAX):
            view = await self._views.get(name)
            info = view.info
            try:
                return *await self._commit_to(info, request, record, stages), info
            except OtherGeneration:
                await view.fresh()
            except (InvalidRequest, EmbeddingUnavailable):
                # It may have been committed when it did fit, or fit what the corpus has become meanwhile.
                async with self._database.autocommit() as connection:
                    earlier = await self._earlier(connection, info.corpus_id, record)
                if earlier is not None:
                    return earlier, True, info
                now, _ = await self._views.fresh(name)
                if now.info is info:
                    raise
        raise CommitContention("the corpus kept changing to other index generations; try again")

    async def _commit_to(
        self, info: CorpusInfo, request: wire.CommitRequest, record: Record, stages: Stages
    ) -> tuple[Logged, bool]:
        """The commit and whether it had been made before. Raises ``OtherGeneration`` if it has to be prepared anew."""
        with stages.stage("split"):
            operations = await self._prepared(info, request.ops)
        work = _Work(info, operations, record, {}, stages)
        for attempt in range(OPTIMISTIC_ATTEMPTS + LOCKED_ATTEMPTS_MAX):
            outcome = await self._attempt(work, locked=attempt >= OPTIMISTIC_ATTEMPTS)
            if outcome is not None:
                return outcome
        raise CommitContention("other commits kept changing the same documents; try again")

    async def _attempt(self, work: _Work, *, locked: bool) -> tuple[Logged, bool] | None:
        """The commit and whether it had been made before; None if it has to be tried again."""
        connecting = self._database.transaction() if locked else self._database.autocommit()
        async with connecting as connection:
            with work.stages.stage("ledger"):
                if locked:
                    await commits.lock(connection, work.info.corpus_id)
                before = await commits.read_before(
                    connection, work.info.corpus_id, work.keys, with_hashes=work.has_puts
                )
                if before.generation != work.info.generation.generation_id:
                    raise OtherGeneration
                # After the documents: were it before, the same request could be applied in between, and this
                # one be refused for what its twin did.
                earlier = await self._earlier(connection, work.info.corpus_id, work.record)
                if earlier is not None:
                    return earlier, True
                plans = plan(work.operations, before.documents, before.newest_versions, work.info.filterable)
            missing = await self._missing(connection, work, plans)
            if not missing:
                return await self._write(connection, work, before, plans)
        # A model may take its time: neither a lock nor a connection is held meanwhile.
        await self._embed(work, missing)
        if locked:
            return None
        async with self._database.autocommit() as connection:
            return await self._write(connection, work, before, plans)

    async def _write(
        self, connection: Connection, work: _Work, before: Before, plans: Sequence[DocumentPlan]
    ) -> tuple[Logged, bool] | None:
        with work.stages.stage("ledger"):
            logged = await commits.write(connection, work.info.corpus_id, before, plans, work.vectors, work.record)
        return None if logged is None else (logged, False)

    @staticmethod
    async def _earlier(connection: Connection, corpus: CorpusId, record: Record) -> Logged | None:
        key = record.idempotency_key
        if key is None:
            return None
        earlier = await commits.find(connection, corpus, key)
        if earlier is not None and earlier.request_hash == REDACTED:
            raise IdempotencyKeyReused(
                f"the commit of the key {key!r}, epoch {earlier.epoch}, had a document that was erased since: "
                "it is not applied again, and nobody can say any more whether this is the same request"
            )
        if earlier is not None and earlier.request_hash != record.request_hash:
            raise IdempotencyKeyReused(
                f"the key {key!r} belongs to another request, epoch {earlier.epoch}; use a new key for a new request"
            )
        return earlier

    async def _missing(self, connection: Connection, work: _Work, plans: Sequence[DocumentPlan]) -> dict[bytes, str]:
        """Texts, by content hash, of chunks to be born for which there is no vector yet, here or in the ledger."""
        pieces = {slot.content_hash: slot.piece for made in plans if made.changed for slot in made.births}
        wanted = {hash_: piece for hash_, piece in pieces.items() if hash_ not in work.vectors and piece is not None}
        brought = {hash_: piece.vector for hash_, piece in wanted.items() if piece.vector is not None}
        work.vectors.update(brought)
        unknown = [hash_ for hash_ in wanted if hash_ not in brought]
        with work.stages.stage("ledger"):
            work.vectors |= await commits.known_vectors(
                connection, work.info.corpus_id, work.info.generation.generation_id, unknown
            )
        return {hash_: wanted[hash_].text for hash_ in unknown if hash_ not in work.vectors}

    async def _embed(self, work: _Work, texts: dict[bytes, str]) -> None:
        generation = work.info.generation
        embedder = self._embedders.get(generation.embedding)
        if embedder is None:
            raise VectorInvalid(f"corpus {work.info.name!r} embeds nothing itself: send `chunks` with a `vector` each")
        hashes = list(texts)
        with work.stages.stage("embed"):
            for start in range(0, len(hashes), EMBED_BATCH_TEXTS):
                batch = hashes[start : start + EMBED_BATCH_TEXTS]
                matrix = await embedder.embed_documents([texts[hash_] for hash_ in batch])
                work.vectors.update(zip(batch, normalised(matrix, generation.distance), strict=True))

    async def _prepared(self, info: CorpusInfo, operations: Sequence[wire.Operation]) -> list[PreparedOperation]:
        return [
            await self._prepared_put(info, operation) if isinstance(operation, wire.Put) else _checked(info, operation)
            for operation in operations
        ]

    async def _prepared_put(self, info: CorpusInfo, put: wire.Put) -> PreparedPut:
        check_metadata(put.metadata, info.filterable)
        self._check_size(put)
        if put.text is not None:
            long = len(put.text) > THREAD_ABOVE_CHARACTERS
            texts = await asyncio.to_thread(split, put.text) if long else split(put.text)
            pieces = [Piece(text) for text in texts]
        else:
            pieces = [_brought(info, chunk) for chunk in put.chunks or ()]
        return PreparedPut(put, pieces, [piece.content_hash for piece in pieces])

    def _check_size(self, put: wire.Put) -> None:
        texts = [put.text] if put.text is not None else [chunk.text for chunk in put.chunks or ()]
        size = sum(len(text.encode()) for text in texts)
        if size > self._document_bytes_max:
            raise DocumentTooLarge(
                f"{put.key!r} has {size} bytes of text and {self._document_bytes_max} are allowed; "
                "divide it, or raise RAGVER_DOCUMENT_BYTES_MAX"
            )


def _checked(
    info: CorpusInfo, operation: wire.Delete | wire.Rename | wire.SetAcl | wire.SetMetadata
) -> PreparedOperation:
    if isinstance(operation, wire.SetMetadata):
        check_metadata(operation.metadata, info.filterable)
    return operation


def _brought(info: CorpusInfo, chunk: wire.ChunkInput) -> Piece:
    if chunk.vector is None:
        return Piece(chunk.text)
    generation = info.generation
    vector = as_vector(chunk.vector, generation.dimensions)
    return Piece(chunk.text, normalised(vector[np.newaxis], generation.distance)[0])


def _request_hash(request: wire.CommitRequest) -> bytes:
    return hashlib.sha256(request.model_dump_json(exclude_defaults=True).encode()).digest()
