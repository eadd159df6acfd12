"""How far each erasure is, and what may be left of its documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ragver import wire
from ragver.errors import ErasureNotFound
from ragver.ledger.database import Database, Row
from ragver.types import Cause, ChunkId, CorpusId, Epoch


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as the ledger keeps it."""

    erasure_id: int
    corpus: CorpusId
    corpus_name: str
    epoch: Epoch
    committed_at: datetime
    reason: str | None
    actor: str | None
    keys: Sequence[str]
    """As they were asked for, or the pseudonyms in their place."""
    keys_too: bool
    document_ids: Sequence[int]
    chunk_ids: Sequence[ChunkId]
    versions: int
    stores: Sequence[wire.StoreReceipt]
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Remains:
    """What the ledger still holds of an erasure's documents; all 0 when it has none."""

    texts: int
    vectors: int
    descriptions: int
    keys: int

    @property
    def none(self) -> bool:
        return self == Remains(0, 0, 0, 0)


_ERASURES = """
    SELECT e.*, c.name, l.committed_at, l.reason, l.actor
    FROM erasure e JOIN corpus c ON c.id = e.corpus_id
    JOIN commit_log l ON l.corpus_id = e.corpus_id AND l.epoch = e.epoch
"""

_GET = text(f"{_ERASURES} WHERE e.corpus_id = :corpus AND e.id = :erasure")

# All erasures of a corpus, newest first.
_LIST = text(f"{_ERASURES} WHERE e.corpus_id = :corpus ORDER BY e.id DESC LIMIT :limit")

# Erasures that wait for a store.
_PENDING = text(f"{_ERASURES} WHERE e.completed_at IS NULL ORDER BY e.id LIMIT :limit")

# Erasures that were completed lately.
_RECENT = text(f"""
    {_ERASURES} WHERE e.completed_at > clock_timestamp() - make_interval(secs => :seconds) ORDER BY e.id LIMIT :limit
""")

_NOTE = text("""
    UPDATE erasure SET stores = CAST(:stores AS jsonb),
        completed_at = CASE WHEN :complete THEN coalesce(completed_at, clock_timestamp()) ELSE completed_at END
    WHERE corpus_id = :corpus AND id = :erasure
""")

# The generations that have vectors, whatever else is known of them: one look into the index for each.
_PRESENT = """
    WITH RECURSIVE present AS (
        SELECT min(generation_id) AS id FROM embedding WHERE corpus_id = :corpus
        UNION ALL
        SELECT (SELECT min(generation_id) FROM embedding WHERE corpus_id = :corpus AND generation_id > present.id)
        FROM present WHERE present.id IS NOT NULL
    )
"""
_OF_CHUNKS = """
    corpus_id = :corpus AND chunk_id = ANY(CAST(:chunks AS bigint[]))
    AND generation_id = ANY(ARRAY(SELECT id FROM present WHERE id IS NOT NULL))
"""

# What is left, looked for in every generation there ever was. What came under the same keys since is not meant.
_REMAINS = text(f"""
    {_PRESENT}
    SELECT
        (SELECT count(*) FROM chunk WHERE corpus_id = :corpus AND id = ANY(CAST(:chunks AS bigint[]))
          AND (text IS NOT NULL OR content_hash <> '' OR cause IS DISTINCT FROM :erased)) AS texts,
        (SELECT count(*) FROM embedding WHERE {_OF_CHUNKS}) AS vectors,
        (SELECT count(*) FROM document_version
          WHERE corpus_id = :corpus AND document_id = ANY(CAST(:documents AS bigint[])) AND born_epoch < :epoch
            AND (title IS NOT NULL OR uri IS NOT NULL OR metadata <> '{{}}' OR cause IS DISTINCT FROM :erased))
          + (SELECT count(*) FROM document
              WHERE corpus_id = :corpus AND id = ANY(CAST(:documents AS bigint[])) AND touched_epoch = :epoch
                AND (alive OR metadata <> '{{}}')) AS descriptions,
        (SELECT count(*) FROM document_version
          WHERE corpus_id = :corpus AND document_id = ANY(CAST(:documents AS bigint[])) AND born_epoch < :epoch
            AND :keys_too AND key NOT LIKE 'erased-%') AS keys
""")

# Every vector of these chunks, whatever generation it is of.
DROP_VECTORS = text(f"{_PRESENT} DELETE FROM embedding WHERE {_OF_CHUNKS}")

# Collections of retired generations that the index has not let go of yet.
_LEFTOVERS = text("SELECT collection FROM dropped_collection WHERE corpus_id = :corpus ORDER BY generation_id")

LIST_MAX = 1_000


async def get(database: Database, corpus: CorpusId, erasure_id: int) -> Erasure:
    """One erasure. Raises ``ErasureNotFound``."""
    rows = await database.fetch(_GET, {"corpus": corpus, "erasure": erasure_id})
    if not rows:
        raise ErasureNotFound(f"there is no erasure {erasure_id} in this corpus")
    return _erasure(rows[0])


async def all_of(database: Database, corpus: CorpusId) -> list[Erasure]:
    """The newest ``LIST_MAX`` erasures of a corpus, newest first."""
    return [_erasure(row) for row in await database.fetch(_LIST, {"corpus": corpus, "limit": LIST_MAX})]


async def pending(database: Database, limit: int) -> list[Erasure]:
    """Erasures of any corpus that wait for a store, oldest first."""
    return [_erasure(row) for row in await database.fetch(_PENDING, {"limit": limit})]


async def recent(database: Database, seconds: float, limit: int) -> list[Erasure]:
    """Erasures that were completed in the last `seconds`."""
    return [_erasure(row) for row in await database.fetch(_RECENT, {"seconds": seconds, "limit": limit})]


async def note(database: Database, erasure: Erasure, stores: Sequence[wire.StoreReceipt], *, complete: bool) -> None:
    """Keep what was found out about the stores; what was complete once stays so."""
    parameters = {
        "corpus": erasure.corpus,
        "erasure": erasure.erasure_id,
        "stores": json.dumps([store.model_dump(mode="json") for store in stores]),
        "complete": complete,
    }
    async with database.autocommit() as connection:
        await connection.fetch(_NOTE, parameters)


async def remains(database: Database, erasure: Erasure) -> Remains:
    """What the ledger still holds of it."""
    (row,) = await database.fetch(
        _REMAINS,
        {
            "corpus": erasure.corpus,
            "chunks": list(erasure.chunk_ids),
            "documents": list(erasure.document_ids),
            "epoch": erasure.epoch,
            "keys_too": erasure.keys_too,
            "erased": Cause.ERASED.value,
        },
    )
    return Remains(row.texts, row.vectors, row.descriptions, row["keys"])


async def drop_vectors(database: Database, erasure: Erasure) -> None:
    """Remove vectors that came to erased chunks after the commit."""
    async with database.autocommit() as connection:
        await connection.fetch(DROP_VECTORS, {"corpus": erasure.corpus, "chunks": list(erasure.chunk_ids)})


async def leftovers(database: Database, corpus: CorpusId) -> list[str]:
    """Collections of the corpus that are still to be dropped from the index."""
    return [row.collection for row in await database.fetch(_LEFTOVERS, {"corpus": corpus})]


def _erasure(row: Row) -> Erasure:
    return Erasure(
        erasure_id=row.id,
        corpus=CorpusId(row.corpus_id),
        corpus_name=row.name,
        epoch=Epoch(row.epoch),
        committed_at=row.committed_at,
        reason=row.reason,
        actor=row.actor,
        keys=row["keys"],
        keys_too=row.keys_too,
        document_ids=row.document_ids,
        chunk_ids=[ChunkId(chunk_id) for chunk_id in row.chunk_ids],
        versions=row.versions,
        stores=[wire.StoreReceipt(**store) for store in row.stores],
        completed_at=row.completed_at,
    )
