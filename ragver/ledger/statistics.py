"""Keeps PostgreSQL's picture of the ledger true while the ledger grows fast.

A plan that was made while the tables were empty takes any index for as good as any other, and is kept until the
tables are analysed. Autovacuum does that, but only once a minute: an import would be over by then.
"""

from __future__ import annotations

from sqlalchemy import text

from ragver.errors import Unavailable
from ragver.ledger.database import Database
from ragver.telemetry import logger

CHUNKS_FIRST = 500
"""Chunks written before the tables are analysed for the first time; from then on, each time they have doubled."""

_ANALYZE = text("ANALYZE (SKIP_LOCKED) chunk, embedding, document, document_version, commit_log")


class Growth:
    """What this process has written, and when that calls for a new look at the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written = 0
        self._next = CHUNKS_FIRST

    async def add(self, chunks: int) -> None:
        """Count newly written chunks. Analysing makes every connection plan anew."""
        self._written += chunks
        if self._written >= self._next:
            self._next = 2 * self._written
            await self._analyse()

    async def _analyse(self) -> None:
        try:
            await self._database.fetch(_ANALYZE)
        except Unavailable as error:
            # What was written is committed and has to be acknowledged; slow plans are the lesser evil.
            logger.warning("analyze_failed", detail=error.detail)
