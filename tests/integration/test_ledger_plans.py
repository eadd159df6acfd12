"""No statement of the hot paths reads more of a big ledger than it needs, whatever the planner knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import TextClause

from ragver import wire
from ragver.bootstrap import Services
from ragver.clock import SystemClock
from ragver.collection import collection_of
from ragver.errors import AnswerIdTaken
from ragver.index.port import Payload, Point
from ragver.indexer import Indexer
from ragver.ledger.corpora import CorpusInfo
from ragver.ledger.database import Connection, Parameters, _compiled
from ragver.ledger.recalls import Position
from ragver.overlay import Question, beyond_the_tail
from ragver.telemetry import Metrics
from ragver.types import ChunkId, DocumentId, Epoch, Scope
from tests.support.services import (
    CORPUS,
    caught_up,
    commit,
    delete,
    make_corpus,
    open_test_services,
    put,
    rename,
    set_acl,
    set_metadata,
)

DOCUMENTS = 20_000
ROWS_MAX = 500
"""Rows that one part of a statement may look at; the corpus has forty times as many of every kind."""
BIG = {"chunk", "document", "document_version", "commit_log", "embedding", "answer", "answer_citation"}

# A corpus with a history: each document, of one chunk, is a commit; every tenth document has died.
FILL = f"""
    INSERT INTO commit_log (corpus_id, epoch, committed_at, idempotency_key, request_hash, summary, prev_hash, hash)
    SELECT $1, n, now() - interval '1 day' + n * interval '1 second', 'fill-' || n, '', '[]', '', ''
    FROM generate_series(1, {DOCUMENTS}) AS n;

    INSERT INTO document (corpus_id, id, key, version, alive, acl, metadata, touched_epoch, metadata_epoch)
    SELECT $1, -n, 'filled/' || n, 1, n % 10 > 0, '["*"]', '{{}}', n, 0 FROM generate_series(1, {DOCUMENTS}) AS n;

    INSERT INTO document_version (corpus_id, document_id, version, key, born_epoch, died_epoch, cause, metadata, acl,
                                  chunk_ids)
    SELECT $1, -n, 1, 'filled/' || n, n, CASE WHEN n % 10 = 0 THEN n + 1 END,
           CASE WHEN n % 10 = 0 THEN 'deleted' END, '{{}}', '["*"]', ARRAY[10000000 * $1 + n]
    FROM generate_series(1, {DOCUMENTS}) AS n;

    INSERT INTO chunk (corpus_id, id, document_id, content_hash, text, born_epoch, died_epoch, cause, touched_epoch)
    SELECT $1, 10000000 * $1 + n, -n, sha256(int8send(n)), 'text ' || n, n, CASE WHEN n % 10 = 0 THEN n + 1 END,
           CASE WHEN n % 10 = 0 THEN 'deleted' END, CASE WHEN n % 10 = 0 THEN n + 1 ELSE n END
    FROM generate_series(1, {DOCUMENTS}) AS n;

    INSERT INTO embedding (corpus_id, generation_id, chunk_id, vector)
    SELECT $1, g.id, 10000000 * $1 + n, decode(repeat('3c', 16), 'hex')
    FROM generate_series(1, {DOCUMENTS}) AS n, index_generation g WHERE g.corpus_id = $1;

    INSERT INTO answer (corpus_id, key, snapshot_epoch, epoch, verdict, policy, scope, delivered_epoch, delivered_at,
                        reader, labels)
    SELECT $1, 'answer-' || n, n, n, 'pass', 'strict', 'cited', n, now(), '', '{{}}'
    FROM generate_series(1, {DOCUMENTS}) AS n;

    INSERT INTO answer_citation (corpus_id, answer_id, chunk_id, ref, status, cited_epoch, rested_epoch)
    SELECT $1, a.id, 10000000 * $1 + a.epoch + hit, hit + 1, CASE WHEN hit = 0 THEN 'live' END,
           CASE WHEN hit = 0 THEN a.epoch END, a.epoch
    FROM answer a, generate_series(0, 2) AS hit WHERE a.corpus_id = $1;

    UPDATE corpus SET epoch = {DOCUMENTS} WHERE id = $1;
    UPDATE index_generation SET applied_epoch = {DOCUMENTS} WHERE corpus_id = $1
"""

EXTERNAL = {"provider": "external", "dimensions": 4}
NEAR = [1.0, 0.0, 0.0, 0.0]
COUNTS_BY_NATURE = "count(*)"
"""Sizes of a corpus are counted where people look at it, not on a hot path."""


def piece(text: str) -> list[dict[str, Any]]:
    return [{"text": text, "vector": NEAR}]


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def fill(services: Services, *, analysed: bool) -> None:
    """Two big corpora, so that neither is all there is, and statistics on them or none."""
    async with session(services.database.url) as connection:
        for table in BIG:
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        for name in (CORPUS, "other"):
            await make_corpus(services, name, embedding=EXTERNAL, filterable={"team": "keyword"})
            info = (await services.views.get(name)).info
            await begin_index(services, info)
            await connection.execute(FILL.replace("$1", str(info.corpus_id)))
        if analysed:
            await connection.execute("ANALYZE")


async def begin_index(services: Services, info: CorpusInfo) -> None:
    """Have something in the index: the indexer would rebuild an empty one."""
    payload = Payload(DocumentId(-1), Epoch(1), None, Epoch(1), ["*"], {})
    point = Point(ChunkId(10_000_000 * info.corpus_id + 1), np.array(NEAR, np.float32), payload)
    await services.index.ensure(collection_of(info))
    await services.index.upsert(collection_of(info), [point])


@pytest.fixture
async def unindexed(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer the test starts."""
    async with open_test_services(database_url, tmp_path) as services:
        yield services


async def use_everything(services: Services) -> None:
    """Every hot path once or more: commits of all kinds, reads of all kinds, retrieval, validation, indexing."""
    commits: list[list[wire.Operation]] = [
        [put("a", chunks=piece("text"), metadata={"team": "x"}), put("b", chunks=piece("text 7"))],
        [put("a", chunks=piece("other"), metadata={"team": "y"}), put("filled/5", chunks=piece("new"))],
        [set_acl("filled/7", "g:h"), set_metadata("b", team="z"), rename("filled/8", "c")],
        [delete("filled/9"), delete("b")],
    ]
    for number, operations in enumerate(commits):
        made = await commit(services, CORPUS, *operations, idempotency_key=f"k{number}")
    for at_epoch in (None, 100, made.epoch - 2):
        await services.catalog.document(CORPUS, "filled/3", at_epoch)
        await services.catalog.documents(CORPUS, "filled/77", at_epoch, None, 10)
    await services.catalog.versions(CORPUS, "filled/5")
    await services.catalog.commits(CORPUS, made.epoch - 3, 10)
    await services.catalog.commits(CORPUS, 50, 10)
    for request in (
        {"vector": NEAR},
        {"vector": NEAR, "consistency": {"level": "exact", "epoch": made.epoch - 2}},
        {
            "vector": NEAR,
            "consistency": {"level": "exact", "epoch": made.epoch - 1},
            "filter": {"field": "team", "eq": "y"},
        },
    ):
        found = await services.retrieval.retrieve(CORPUS, wire.RetrieveRequest.model_validate(request))
    await services.validation.validate(
        CORPUS, wire.ValidateRequest(snapshot=found.snapshot, answer="So [1] [10000007].")
    )
    kept = wire.ValidateRequest(snapshot=found.snapshot, answer="So [1].", record=True, answer_id="answer-5")
    with pytest.raises(AnswerIdTaken):
        await services.answers.validate(CORPUS, kept)
    await services.answers.validate(CORPUS, kept.model_copy(update={"answer_id": "new"}))
    await services.answers.get(CORPUS, "answer-5")
    await services.answers.revalidate_many(CORPUS, ["answer-6", "answer-7"], [])
    for scope in Scope:
        recalled = await services.recalls.page(CORPUS, Position(Epoch(made.epoch - 4)), scope, 10)
        assert recalled.recalls
    await services.retention.collect(CORPUS)
    view, head = await services.views.fresh(CORPUS)
    question = Question(np.array(NEAR, np.float32), head.epoch, [], None)
    assert await beyond_the_tail(services.database, view.info.corpus_id, question, head.epoch)
    indexer = Indexer(services.database, services.index, services.builder, SystemClock(), 0.05, Metrics())
    indexing = asyncio.create_task(indexer.run())
    await caught_up(services)
    indexing.cancel()
    await asyncio.gather(indexing, return_exceptions=True)
    await services.retrieval.retrieve(CORPUS, wire.RetrieveRequest(vector=NEAR))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def looked_at(node: dict[str, Any]) -> float:
    """How many rows of its table a node has read, kept or not."""
    dropped = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck", "Join Filter"))
    rows: float = (node["Actual Rows"] + dropped) * node["Actual Loops"]
    return rows


async def explained(connection: Any, sql: str, values: Sequence[Any]) -> dict[str, Any]:
    """The plan of a statement as it was really executed; its effects are taken back."""
    await connection.execute(f"PREPARE explained AS {sql}")
    transaction = connection.transaction()
    await transaction.start()
    try:
        given = f"({', '.join(map(literal, values))})" if values else ""
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) EXECUTE explained {given}")
    finally:
        await transaction.rollback()
        await connection.execute("DEALLOCATE explained")
    root: dict[str, Any] = json.loads(plan)[0]["Plan"]
    return root


def literal(value: Any) -> str:
    return "NULL" if value is None else "'" + _text(value).replace("'", "''") + "'"


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case bytes():
            return f"\\x{value.hex()}"
        case list() | tuple() | set():
            return "{" + ",".join("NULL" if one is None else _quoted(_text(one)) for one in value) + "}"
        case _:
            return str(value)


def _quoted(element: str) -> str:
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Guard:
    """Explains every statement on a big table just before it is executed, where it finds what it will find then."""

    def __init__(self, connection: Any) -> None:
        self.checked: set[str] = set()
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()

    async def check(self, sql: str, values: Sequence[Any]) -> None:
        if COUNTS_BY_NATURE in sql or not any(table in sql for table in BIG):
            return
        async with self._one_at_a_time:
            for mode in ("force_custom_plan", "force_generic_plan"):
                await self._connection.execute(f"SET plan_cache_mode = {mode}")
                check_plan(await explained(self._connection, sql, values), f"{mode}: {sql}")
        self.checked.add(sql)


@pytest.mark.parametrize("analysed", [True, False], ids=["analysed", "never analysed"])
async def test_hot_statements_touch_few_rows(
    unindexed: Services, monkeypatch: pytest.MonkeyPatch, analysed: bool
) -> None:
    """With fresh statistics and with none, with the values known and with a plan for any values, no statement
    scans a big table from end to end, nor reads many more rows than it answers with."""
    await fill(unindexed, analysed=analysed)
    fetch = Connection.fetch
    async with session(unindexed.database.url) as connection:
        guard = Guard(connection)

        async def guarded(self: Connection, statement: TextClause, parameters: Parameters | None = None) -> Any:
            sql, names = _compiled(statement)
            looked = asyncio.ensure_future(guard.check(sql, [(parameters or {})[name] for name in names]))
            try:
                await asyncio.shield(looked)
            except asyncio.CancelledError:
                # Whoever asked may give up; half a look would leave its statement and its transaction behind.
                await looked
                raise
            return await fetch(self, statement, parameters)

        with monkeypatch.context() as patch:
            patch.setattr(Connection, "fetch", guarded)
            await use_everything(unindexed)
        assert len(guard.checked) > 12


def check_plan(plan: dict[str, Any], what: str) -> None:
    for node in nodes(plan):
        if node.get("Relation Name") in BIG or "Index Name" in node:
            assert node["Node Type"] != "Seq Scan", what
            assert looked_at(node) <= ROWS_MAX, f"{node['Node Type']} looks at {looked_at(node)} rows in {what}"


async def test_the_guard_sees_a_scan(unindexed: Services) -> None:
    """A statement without an index to go by does not pass, nor one that reads a whole corpus through an index."""
    await fill(unindexed, analysed=True)
    corpus = (await unindexed.views.get(CORPUS)).info.corpus_id
    async with session(unindexed.database.url) as connection:
        for sql in (
            "SELECT count(*) FROM chunk WHERE text = 'text 1'",
            f"SELECT sum(touched_epoch) FROM chunk WHERE corpus_id = {corpus} AND touched_epoch > 0",
        ):
            plan = await explained(connection, sql, [])
            with pytest.raises(AssertionError):
                check_plan(plan, sql)
