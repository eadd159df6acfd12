"""What this process knows of a corpus, and how it makes sure that it is still so.

A view keeps chunk records as of the newest head it has seen. Asking for a fresh head reads the corpus row, and,
if it has moved, which documents were touched since: their records are forgotten. What remains was not touched
by any commit up to that head, so it is true at that head. No answer is ever given from the view alone: the
fresh read comes first, and everybody who waits at the same moment shares one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ragver.coalesce import Coalesced
from ragver.errors import CorpusNotFound, SnapshotForeign
from ragver.ledger import chunks, corpora
from ragver.ledger.chunks import ChunkRecord, Records
from ragver.ledger.corpora import CorpusInfo, Head
from ragver.ledger.database import Database
from ragver.tokens import Snapshot
from ragver.types import ChunkId, DocumentId, Epoch, Lineage

RECORDS_MAX = 50_000
TOUCHED_DOCUMENTS_MAX = 10_000
LINEAGES_MAX = 10_000
"""Epochs whose lineage a view remembers."""


class OtherGeneration(Exception):
    """Another generation serves than the one whose vectors were made; a fresh view names it."""


class CorpusView:
    """One corpus as this process has last seen it."""

    def __init__(self, database: Database, info: CorpusInfo) -> None:
        self.info = info
        """Renewed with the head when another generation serves; whoever works with it keeps to the one he took."""
        self.last: Head | None = None
        """The newest head seen; a hint, never an answer."""
        self._database = database
        self._records: dict[ChunkId, ChunkRecord] = {}
        self._chunks_of: defaultdict[DocumentId, set[ChunkId]] = defaultdict(set)
        self._lineages: dict[Epoch, Lineage] = {}
        self._fresh = Coalesced(self._refresh)

    async def fresh(self) -> Head:
        """The head as of a read that began after this call; the view is then true at that head."""
        return await self._fresh()

    async def close(self) -> None:
        """Let go of the ledger: a read that nobody waits for any more would still be on its way."""
        await self._fresh.close()

    @property
    def seen(self) -> Epoch:
        """The epoch up to which every touched document has been forgotten."""
        return Epoch(0) if self.last is None else self.last.epoch

    async def _refresh(self) -> Head:
        head = await self._head()
        if self._records and head.epoch != self.seen:
            limit = TOUCHED_DOCUMENTS_MAX + 1
            touched = await chunks.touched_documents(self._database, self.info.corpus_id, self.seen, limit)
            self._forget(touched, everything=len(touched) == limit or head.epoch < self.seen)
        if head.generation != self.info.generation.generation_id:
            self.info = await corpora.by_id(self._database, self.info.corpus_id)
        if head.epoch != self.seen:
            # Tokens of this epoch are issued from now on, and come back when it is no longer the head.
            self._note_lineage(head.epoch, head.lineage)
        self.last = head
        return head

    async def _head(self) -> Head:
        if self.last is None:
            return await corpora.head(self._database, self.info.corpus_id)
        return await corpora.head_since(self._database, self.info.corpus_id, self.last)

    async def lineage(self, epoch: Epoch) -> Lineage:
        """The lineage of an epoch up to the head; a later view of a restored ledger looks it up anew."""
        if self.last is not None and epoch == self.last.epoch:
            return self.last.lineage
        known = self._lineages.get(epoch)
        if known is None:
            known = self._note_lineage(epoch, await corpora.lineage_at(self._database, self.info.corpus_id, epoch))
        return known

    def _note_lineage(self, epoch: Epoch, lineage: Lineage) -> Lineage:
        if len(self._lineages) >= LINEAGES_MAX:
            self._lineages.pop(next(iter(self._lineages)))
        self._lineages[epoch] = lineage
        return lineage

    async def require(self, snapshot: Snapshot) -> None:
        """Raise ``SnapshotForeign`` for a snapshot of an epoch that a restore of the ledger has undone."""
        if await self.lineage(snapshot.epoch) != snapshot.lineage:
            raise SnapshotForeign(
                f"the epoch {snapshot.epoch} of this token is not the one that the ledger has: it was restored from a "
                "backup since, and has issued the number anew; retrieve again"
            )

    def _forget(self, documents: Sequence[DocumentId], *, everything: bool) -> None:
        if everything:
            self._records.clear()
            self._chunks_of.clear()
        for document in documents:
            for chunk_id in self._chunks_of.pop(document, ()):
                self._records.pop(chunk_id, None)

    async def records(self, chunk_ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkRecord]:
        """The chunks that exist among `chunk_ids`, dead or alive; true at ``seen`` or at a later epoch."""
        known, missing = self._known(chunk_ids)
        if not missing:
            return known
        return known | self._noted(await chunks.records(self._database, self.info.corpus_id, missing))

    async def records_at(self, chunk_ids: Sequence[ChunkId], epoch: Epoch) -> dict[ChunkId, ChunkRecord]:
        """The chunks among `chunk_ids` that are alive at `epoch`, all described as they were then."""
        known, missing = self._known(chunk_ids) if epoch == self.seen else ({}, list(chunk_ids))
        known = {chunk_id: record for chunk_id, record in known.items() if record.alive_at(epoch)}
        if not missing:
            return known
        found = await chunks.records_at(self._database, self.info.corpus_id, missing, epoch)
        return known | (self._noted(found) if found.head == epoch else found.by_id)

    def _known(self, chunk_ids: Sequence[ChunkId]) -> tuple[dict[ChunkId, ChunkRecord], list[ChunkId]]:
        known = {chunk_id: record for chunk_id in chunk_ids if (record := self._records.get(chunk_id)) is not None}
        return known, [chunk_id for chunk_id in chunk_ids if chunk_id not in known]

    def _noted(self, found: Records) -> dict[ChunkId, ChunkRecord]:
        # Only what was read at the very epoch of the view. From an earlier one it may show a document as it was
        # before the view forgot it, and would keep it for good; from a later one, half of a commit.
        if found.head == self.seen:
            self._remember(found.by_id)
        return found.by_id

    def _remember(self, records: dict[ChunkId, ChunkRecord]) -> None:
        for chunk_id, record in records.items():
            self._records[chunk_id] = record
            self._chunks_of[record.document_id].add(chunk_id)
        while len(self._records) > RECORDS_MAX:
            self._drop(next(iter(self._records)))

    def _drop(self, chunk_id: ChunkId) -> None:
        document = self._records.pop(chunk_id).document_id
        siblings = self._chunks_of[document]
        siblings.discard(chunk_id)
        if not siblings:
            del self._chunks_of[document]


class Views:
    """The views of this process, by corpus name."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._views: dict[str, CorpusView] = {}

    async def get(self, name: str) -> CorpusView:
        """The view of the corpus of this name. Raises ``CorpusNotFound``."""
        view = self._views.get(name)
        if view is None:
            view = CorpusView(self._database, await corpora.get(self._database, name))
            self._views[name] = view
        return view

    async def fresh(self, name: str) -> tuple[CorpusView, Head]:
        """The view and a fresh head, also when the corpus was deleted and made again under the same name."""
        view = await self.get(name)
        try:
            return view, await view.fresh()
        except CorpusNotFound:
            self.forget(name)
            view = await self.get(name)
            return view, await view.fresh()

    async def close(self) -> None:
        """Let go of the ledger, before it is closed."""
        for view in self._views.values():
            await view.close()

    def forget(self, name: str) -> None:
        """Let go of what is known of a corpus."""
        self._views.pop(name, None)
