"""Corpora, documents and the change feed, as people and programs look them up."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

from ragver import wire
from ragver.collection import leftover_of
from ragver.embedding.registry import complete
from ragver.errors import CorpusNotFound, DocumentErased, DocumentNotFound, EpochAhead, InvalidRequest, SnapshotExpired
from ragver.index.port import Index
from ragver.ledger import audit, corpora, documents
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.ledger.database import Database
from ragver.liveness import Views
from ragver.types import Epoch
from ragver.wellformed import clean


class Catalog:
    """Reads of the ledger that no index takes part in, and the making and unmaking of corpora."""

    def __init__(self, database: Database, index: Index, views: Views, embedding_default: str) -> None:
        self._database = database
        self._index = index
        self._views = views
        self._embedding_default = wire.Embedding.model_validate({"provider": embedding_default})

    async def create(self, wanted: wire.CorpusCreate) -> wire.Corpus:
        """Make an empty corpus. Raises ``CorpusExists``, or ``InvalidRequest`` for an impossible embedding."""
        embedding = complete(wanted.embedding or self._embedding_default)
        return await self._described(await corpora.create(self._database, wanted, embedding))

    async def corpus(self, name: str) -> wire.Corpus:
        """A corpus with its head and sizes. Raises ``CorpusNotFound``."""
        return await self._described(await corpora.get(self._database, name))

    async def corpora(self, wanted: Callable[[str], bool] = lambda name: True) -> list[wire.Corpus]:
        """The corpora whose names are wanted, by name."""
        return [await self._described(info) for info in await corpora.all_of(self._database) if wanted(info.name)]

    async def delete(self, name: str) -> None:
        """Remove a corpus for good: first from the ledger, which ends all reads, then its points."""
        info = await corpora.get(self._database, name)
        dropped = await corpora.delete(self._database, info.corpus_id)
        self._views.forget(name)
        for generation in dropped:
            await self._index.drop(leftover_of(generation))

    async def document(
        self, name: str, key: str, at_epoch: int | None, principals: Sequence[str] | None = None
    ) -> wire.Document:
        """The document as it was at an epoch, or is. Raises ``DocumentNotFound``, ``SnapshotExpired``, or
        ``DocumentErased`` for an epoch at which it was there.

        With `principals`, here and below, what today's access lists deny them is not there; without, access lists
        hide nothing.
        """
        info, head = await self._moment(name, at_epoch)
        epoch = head.epoch if at_epoch is None else Epoch(at_epoch)
        reading = await documents.at_epoch(self._database, info.corpus_id, key, epoch, principals)
        if reading is None:
            raise CorpusNotFound(f"there is no corpus {name!r} any more")
        # The horizon once more, from the statement that read the document.
        _check_epoch(epoch, reading.head, reading.horizon)
        if reading.erased:
            raise DocumentErased(f"{key!r} was there at epoch {epoch} and has been erased; nothing brings it back")
        if reading.document is None:
            raise DocumentNotFound(f"there is no document {key!r} at epoch {epoch} of {name!r}")
        return reading.document

    async def documents(
        self,
        name: str,
        prefix: str,
        at_epoch: int | None,
        cursor: str | None,
        limit: int,
        principals: Sequence[str] | None = None,
    ) -> wire.DocumentPage:
        """The documents alive at an epoch in the order of their keys. A cursor goes on at its own epoch."""
        after, cursor_epoch = ("", None) if cursor is None else _read_cursor(cursor)
        info, head = await self._moment(name, at_epoch if cursor_epoch is None else cursor_epoch)
        epoch = Epoch(next(known for known in (cursor_epoch, at_epoch, head.epoch) if known is not None))
        found = await documents.page(self._database, info.corpus_id, epoch, prefix, after, limit + 1, principals)
        page = found[:limit]
        more = len(found) > limit
        return wire.DocumentPage(documents=page, next_cursor=_cursor(page[-1].key, epoch) if more else None)

    async def versions(self, name: str, key: str, principals: Sequence[str] | None = None) -> wire.DocumentVersions:
        """The history of a document. Raises ``DocumentNotFound``."""
        info, _ = await self._moment(name, None)
        found = await documents.versions(self._database, info.corpus_id, key, principals)
        if not found:
            raise DocumentNotFound(f"there has never been a document {key!r} in {name!r}")
        return wire.DocumentVersions(versions=found)

    async def commits(self, name: str, since: int, limit: int) -> list[wire.CommitEntry]:
        """Up to `limit` commits after epoch `since`, oldest first."""
        info, _ = await self._moment(name, None)
        return await documents.commits(self._database, info.corpus_id, Epoch(since), limit)

    async def verify_log(self, name: str, anchor: tuple[int, str] | None) -> wire.LogVerification:
        """Walk the chain of the corpus's log; `anchor` is an epoch and its hash that were written down before."""
        known = None if anchor is None else (anchor[0], _hash(anchor[1]))
        info, _ = await self._moment(name, None)
        return await audit.verify(self._database, info.corpus_id, known)

    async def _moment(self, name: str, at_epoch: int | None) -> tuple[CorpusInfo, Head]:
        view, head = await self._views.fresh(name)
        if at_epoch is not None:
            _check_epoch(Epoch(at_epoch), head.epoch, head.horizon)
        return view.info, head

    async def _described(self, info: CorpusInfo) -> wire.Corpus:
        figures = await corpora.figures(self._database, info.corpus_id)
        return wire.Corpus(
            name=info.name,
            head=figures.head.epoch,
            applied_epoch=figures.head.applied,
            horizon=figures.head.horizon,
            documents=figures.documents,
            chunks=figures.chunks,
            embedding=info.generation.embedding,
            filterable=dict(info.filterable),
            retention_s=info.retention_s,
            verdict_ttl_ms=info.verdict_ttl_ms,
            created_at=info.created_at,
        )


def _check_epoch(epoch: Epoch, head: Epoch, horizon: Epoch) -> None:
    if epoch > head:
        raise EpochAhead(f"epoch {epoch} has not been issued; the head is {head}")
    if epoch < horizon:
        raise SnapshotExpired(f"epoch {epoch} lies before the horizon {horizon}; ask for a later one")


def _hash(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidRequest("`hash` is a `head_hash` of an earlier verification: 64 hexadecimal digits") from None


def _cursor(key: str, epoch: Epoch) -> str:
    return base64.urlsafe_b64encode(f"{epoch}:{key}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[str, int]:
    try:
        epoch, _, key = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        return clean(key), int(epoch)
    except (binascii.Error, ValueError):
        raise InvalidRequest("`cursor` is not one that was given out; start again without it") from None
