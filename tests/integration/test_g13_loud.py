"""G13: a check that could not be made is an error, never a pass and never an empty result."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ragver import indexer as indexing
from ragver import overlay, retrieval
from ragver.bootstrap import Services
from ragver.embedded.datadir import DataDir
from ragver.embedded.postgres import EmbeddedPostgres
from ragver.errors import EmbeddingUnavailable, IndexUnavailable, LedgerUnavailable, Unavailable
from ragver.index.port import Collection
from ragver.ledger import chunks
from ragver.types import Epoch, Level
from tests.support.services import CORPUS, caught_up, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import (
    EXTERNAL,
    Watched,
    chunk,
    collection,
    index_all,
    indexer_of,
    retrieve,
    second_process,
    statuses,
    texts,
    validate,
    watched,
)

pytestmark = pytest.mark.guarantee(13)

NOBODY = "http://127.0.0.1:9/v1"
"""Where nothing listens."""
OUTAGES = 3


async def _filled(services: Services) -> str:
    """A corpus with one chunk in the index and one beyond it; a snapshot of both."""
    await make_corpus(services, embedding=EXTERNAL)
    await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    await index_all(services)
    await commit(services, CORPUS, put("b", chunks=[chunk("b1", 2)]))
    answer = await retrieve(services)
    assert ["a1", "b1"] == texts(answer)
    return answer.snapshot


@pytest.fixture
async def stopped(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Services whose indexer is stopped."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        yield services


# ── the ledger is away ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server(data_dir: Path) -> EmbeddedPostgres:
    """A PostgreSQL that the test may stop."""
    return EmbeddedPostgres(DataDir(data_dir).postgres)


@pytest.fixture
async def embedded(data_dir: Path, server: EmbeddedPostgres) -> AsyncIterator[Services]:
    """Services with a server of their own."""
    async with open_test_services(None, data_dir) as services:
        yield services
    server.stop()


def _reads_and_checks(services: Services, token: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "strong": lambda: retrieve(services),
        "bounded": lambda: retrieve(services, level=Level.BOUNDED),
        "at_least": lambda: retrieve(services, level=Level.AT_LEAST, epoch=1),
        "exact": lambda: retrieve(services, epoch=1),
        "snapshot": lambda: retrieve(services, snapshot=token),
        "as_of": lambda: retrieve(services, as_of=datetime(2026, 1, 1, tzinfo=UTC)),
        "strict": lambda: validate(services, token),
        "flag": lambda: validate(services, token, policy="flag"),
        "redact": lambda: validate(services, token, policy="redact", answer="Text without a citation."),
        "nothing cited": lambda: validate(services, token, scope="cited", citations=[]),
        "document": lambda: services.catalog.document(CORPUS, "a", None),
        "feed": lambda: services.catalog.commits(CORPUS, 0, 10),
    }


async def test_g13_no_ledger_no_answer(embedded: Services, server: EmbeddedPostgres) -> None:
    """Every read and every check says that the ledger is away; when it is back, all are answered as before."""
    token = await _filled(embedded)
    processes = (embedded, await second_process(embedded))
    await asyncio.to_thread(server.stop)
    for process in processes:
        for name, ask in _reads_and_checks(process, token).items():
            with pytest.raises(LedgerUnavailable) as raised:
                await ask()
            assert (503, True) == (raised.value.status, raised.value.retryable), name
    await asyncio.to_thread(server.start)
    for process in processes:
        for ask in _reads_and_checks(process, token).values():
            await ask()
        assert ["a1", "b1"] == texts(await retrieve(process))
        assert ["live", "live"] == statuses(await validate(process, token))


async def test_g13_the_ledger_goes_away_in_mid_read(embedded: Services, server: EmbeddedPostgres) -> None:
    """Gone between the head read and the last look, a read has no answer either."""
    await _filled(embedded)
    services, index = watched(await second_process(embedded))
    index.before_search = lambda: asyncio.to_thread(server.stop)
    with pytest.raises(LedgerUnavailable):
        await retrieve(services, epoch=1)
    await asyncio.to_thread(server.start)
    assert ["a1"] == texts(await retrieve(services, epoch=1))


async def test_g13_outages_among_many_requests(embedded: Services, server: EmbeddedPostgres) -> None:
    """While the server comes and goes each request is answered right or not at all, and none waits for ever."""
    token = await _filled(embedded)
    done = asyncio.Event()
    outcomes = {"right": 0, "unavailable": 0}

    async def ask(about: Callable[[], Awaitable[bool]]) -> None:
        while not done.is_set():
            try:
                assert await about()
                outcomes["right"] += 1
            except LedgerUnavailable:
                outcomes["unavailable"] += 1
            await asyncio.sleep(0.002)

    async def reads() -> bool:
        return texts(await retrieve(embedded)) == ["a1", "b1"]

    async def checks() -> bool:
        return statuses(await validate(embedded, token)) == ["live", "live"]

    asking = [asyncio.create_task(ask(about)) for about in (reads, checks) for _ in range(4)]
    for _ in range(OUTAGES):
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
    before = outcomes["right"]
    await asyncio.sleep(0.3)
    done.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*asking)
    assert outcomes["unavailable"] > 0
    assert outcomes["right"] > before


async def test_g13_swallowing_the_error_would_pass_a_dead_citation(
    embedded: Services, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: a view that falls back on what it knew when the ledger does not answer."""
    from ragver.ledger.corpora import Head
    from ragver.liveness import CorpusView

    token = await _filled(embedded)
    checks = await second_process(embedded)
    assert ["live", "live"] == statuses(await validate(checks, token))
    await commit(embedded, CORPUS, delete("a"))
    fresh = CorpusView.fresh

    async def fall_back(view: CorpusView) -> Head:
        try:
            return await fresh(view)
        except LedgerUnavailable:
            assert view.last is not None
            return view.last

    monkeypatch.setattr(CorpusView, "fresh", fall_back)
    await asyncio.to_thread(server.stop)
    assert ["live", "live"] == statuses(await validate(checks, token))
    monkeypatch.undo()
    with pytest.raises(LedgerUnavailable):
        await validate(checks, token)


# ── the index is away ───────────────────────────────────────────────────────────────────────────────────────


async def test_g13_no_index_no_retrieval_and_everything_else(stopped: Services) -> None:
    """Retrievals say that the index is away; what needs none goes on; when it is back, all is as before."""
    token = await _filled(stopped)
    services, index = watched(stopped)
    for process in (services, await second_process(services, index)):
        index.away = True
        asked = _reads_and_checks(process, token)
        for level in ("strong", "bounded", "at_least", "exact", "snapshot"):
            with pytest.raises(IndexUnavailable) as raised:
                await asked[level]()
            assert (503, True) == (raised.value.status, raised.value.retryable), level
        for other in ("strict", "flag", "redact", "document", "feed"):
            await asked[other]()
        assert ["live", "live"] == statuses(await validate(process, token))
        await commit(process, CORPUS, put("c", text=""))
        index.away = False
        assert ["a1", "b1"] == texts(await retrieve(process))


async def test_g13_before_anything_is_applied_no_index_is_needed(stopped: Services) -> None:
    """As long as all changes are in the tail, the ledger alone answers."""
    services, index = watched(stopped)
    await make_corpus(services, embedding=EXTERNAL)
    await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    index.away = True
    for _ in range(2):
        assert ["a1"] == texts(await retrieve(services))
    assert [] == index.searches


async def _mostly_on_the_tail(services: Services) -> tuple[Services, Watched]:
    """An index that is away, with two documents in it, one of them restricted, and a third one beyond it."""
    await make_corpus(services, embedding=EXTERNAL, filterable={"team": "keyword"})
    early = put("early", chunks=[chunk("early", 1)], metadata={"team": "x"})
    await commit(services, CORPUS, early, put("secret", chunks=[chunk("secret", 2)], acl=["user:ada"]))
    await index_all(services)
    await commit(services, CORPUS, put("late", chunks=[chunk("late", 3)], metadata={"team": "y"}))
    reading, index = watched(services)
    index.away = True
    return reading, index


async def _refused(services: Services, **question: Any) -> None:
    with pytest.raises(IndexUnavailable):
        await retrieve(services, **question)


async def test_g13_the_tail_alone_answers_where_the_index_could_add_nothing(stopped: Services) -> None:
    """A strong read without the index: right where all that may match is on the tail, refused everywhere else."""
    services, index = await _mostly_on_the_tail(stopped)
    team_y = {"field": "team", "eq": "y"}
    for process in (services, await second_process(stopped, index)):
        await _refused(process)
        await _refused(process, filter={"field": "team", "in": ["x", "y"]})
        assert ["late"] == texts(await retrieve(process, filter=team_y, principals=["user:ada"]))
        await _refused(process, filter=team_y, level=Level.BOUNDED)
    await commit(stopped, CORPUS, delete("early"))
    for process in (services, await second_process(stopped, index)):
        answer = await retrieve(process)
        assert (["late"], 2) == (texts(answer), answer.tail)
        await _refused(process, principals=["user:ada"])
        await _refused(process, epoch=answer.epoch)
        await _refused(process, epoch=1)
    index.away = False
    assert ["secret", "late"] == texts(await retrieve(services, principals=["user:ada"]))


async def test_g13_many_documents_beyond_the_tail_are_not_looked_at(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more of them than a read may look at, none of which would match, the index is missed all the same."""
    services, _ = await _mostly_on_the_tail(stopped)
    monkeypatch.setattr(overlay, "SETTLED_DOCUMENTS_MAX", 1)
    await _refused(services, filter={"field": "team", "eq": "y"})


async def test_g13_a_commit_while_the_tail_is_judged(stopped: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dies between the head and the look at the documents was alive at that head: the read begins anew."""
    services, _ = await _mostly_on_the_tail(stopped)
    late = _delete_before_judging(services, monkeypatch)
    answer = await retrieve(services)
    assert (["late"], late[0]) == (texts(answer), answer.epoch)


async def test_g13_anomaly_a_tail_judged_at_a_later_head_gives_a_thinner_answer(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without holding the two heads against each other: at its own epoch the answer lacks a chunk."""
    services, _ = await _mostly_on_the_tail(stopped)
    await retrieve(services, filter={"field": "team", "eq": "y"})  # the tail is known up to the head now
    _delete_before_judging(services, monkeypatch, unheeded=True)
    answer = await retrieve(services)
    assert (["late"], 2) == (texts(answer), answer.epoch)
    monkeypatch.undo()
    assert ["early", "late"] == texts(await retrieve(stopped, epoch=answer.epoch))


def _delete_before_judging(services: Services, monkeypatch: pytest.MonkeyPatch, *, unheeded: bool = False) -> list[int]:
    """Have a document deleted before each first look at what is beyond the tail; the epochs of that."""
    look, epochs = chunks.settled_documents, list[int]()

    async def delete_first(*asked: Any) -> chunks.Settled:
        if not epochs:
            epochs.append((await commit(services, CORPUS, delete("early"))).epoch)
        found = await look(*asked)
        return found._replace(head=Epoch(epochs[0] - 1)) if unheeded else found

    monkeypatch.setattr(chunks, "settled_documents", delete_first)
    return epochs


async def test_g13_anomaly_a_tail_that_is_not_judged_gives_a_thinner_answer(
    stopped: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the look at the documents, a read without the index passes off the tail as everything."""
    services, _ = await _mostly_on_the_tail(stopped)

    async def nothing(*asked: Any) -> bool:
        return False

    monkeypatch.setattr(retrieval, "beyond_the_tail", nothing)
    assert ["late"] == texts(await retrieve(services))
    monkeypatch.undo()
    await _refused(services)


async def test_g13_an_index_directory_that_is_gone(database_url: str, tmp_path: Path) -> None:
    """Removed between two runs: retrievals fail, until the indexer has filled it again from the ledger."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        token = await _filled(services)
    shutil.rmtree(DataDir(tmp_path / "data").index)
    async with open_test_services(database_url, tmp_path / "data") as services:
        with pytest.raises(IndexUnavailable):
            await retrieve(services)
        assert ["live", "live"] == statuses(await validate(services, token))
    async with open_test_services(database_url, tmp_path / "data", indexing=True) as services:
        async with asyncio.timeout(20):
            while True:
                try:
                    assert ["a1", "b1"] == texts(await retrieve(services))
                    break
                except IndexUnavailable:
                    await asyncio.sleep(0.01)
        await caught_up(services)
        answer = await retrieve(services)
        assert (["a1", "b1"], 0) == (texts(answer), answer.tail)


async def test_g13_a_collection_lost_at_rest_is_made_again(stopped: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to apply the indexer still notices, and reads are answered again without a commit."""
    monkeypatch.setattr(indexing, "CHECK_S", 0.05)
    await _filled(stopped)
    running = asyncio.create_task(indexer_of(stopped).run())
    try:
        await caught_up(stopped)
        await stopped.index.drop(await collection(stopped))
        async with asyncio.timeout(20):
            while await _unavailable(stopped):
                pass
        await caught_up(stopped)
        answer = await retrieve(stopped)
        assert (["a1", "b1"], 0) == (texts(answer), answer.tail)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _unavailable(services: Services) -> bool:
    try:
        assert ["a1", "b1"] == texts(await retrieve(services))
    except IndexUnavailable:
        return True
    return False


class Broken(Watched):
    """An index that fails in one collection, as named or as no one foresaw."""

    def __init__(self, inner: Any, collection: str, error: Exception) -> None:
        super().__init__(inner)
        self.broken: str | None = collection
        self._error = error

    async def upsert(self, collection: Collection, points: Any) -> None:
        if collection.name == self.broken:
            raise self._error
        await super().upsert(collection, points)


@pytest.mark.parametrize("error", [IndexUnavailable("full"), ValueError("a bug")])
async def test_g13_trouble_with_one_corpus_is_not_the_others(
    stopped: Services, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are indexed meanwhile, and so is it when the trouble is over."""
    monkeypatch.setattr(indexing, "RETRY_S", 0.05)
    for name in ("first", "second"):
        await make_corpus(stopped, name, embedding=EXTERNAL)
        await commit(stopped, name, put("a", chunks=[chunk("a1", 1)]))
    index = Broken(stopped.index, (await collection(stopped, "first")).name, error)
    running = asyncio.create_task(indexer_of(replace(stopped, index=index)).run())
    try:
        await caught_up(stopped, "second")
        await commit(stopped, "second", put("b", chunks=[chunk("b1", 1)]))
        await caught_up(stopped, "second")
        assert 0 == (await stopped.catalog.corpus("first")).applied_epoch
        assert ["a1"] == texts(await retrieve(stopped, corpus="first"))
        index.broken = None
        await caught_up(stopped, "first")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# ── the embedding service is away ───────────────────────────────────────────────────────────────────────────


async def test_g13_no_embedding_no_question_and_no_text(database_url: str, tmp_path: Path) -> None:
    """What has to be embedded fails and leaves nothing behind; vectors, checks and deletes go on."""
    async with open_test_services(
        database_url, tmp_path / "data", openai_base_url=NOBODY, openai_api_key="x", embedding_timeout_s=1.0
    ) as services:
        await make_corpus(services, embedding={"provider": "openai", "model": "own", "dimensions": 4})
        await commit(services, CORPUS, put("a", chunks=[chunk("a1", 1)]))
        for ask in (
            retrieve(services, query="leave"),
            commit(services, CORPUS, put("b", "Thirty days of leave."), delete("a")),
        ):
            with pytest.raises(EmbeddingUnavailable) as raised:
                await ask
            assert (503, True) == (raised.value.status, raised.value.retryable)
        answer = await retrieve(services)
        assert (1, ["a1"]) == (answer.epoch, texts(answer))
        await commit(services, CORPUS, delete("a"))
        assert ["deleted"] == statuses(await validate(services, answer.snapshot))


async def test_g13_all_that_may_be_away_is_one_kind_of_error() -> None:
    """A caller can tell "could not be checked" from any verdict by one class."""
    assert {LedgerUnavailable, IndexUnavailable, EmbeddingUnavailable} <= set(Unavailable.__subclasses__())
