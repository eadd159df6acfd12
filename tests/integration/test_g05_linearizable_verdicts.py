"""G5: a verdict reflects every commit acknowledged before the validation began."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.ledger import chunks
from ragver.ledger.chunks import Records
from ragver.ledger.corpora import Head
from ragver.liveness import CorpusView
from ragver.types import ChunkId
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put, rename, set_acl
from tests.support.spine import EXTERNAL, chunk, retrieve, second_process, sql, statuses, validate

pytestmark = pytest.mark.guarantee(5)

T = TypeVar("T")

RACE_S = 4.0
RACERS = 8
BATCH = 50
"""Documents that a racer makes, and reads, before it deletes one after the other."""
RACES_MIN = 100
"""So few only where the machine stands still."""


@asynccontextmanager
async def _two(database_url: str, directory: Path) -> AsyncIterator[tuple[Services, Services]]:
    """Two processes' worth of services on one ledger; no indexer runs, since none takes part."""
    async with (
        open_test_services(database_url, directory / "a") as writes,
        open_test_services(database_url, directory / "b") as checks,
    ):
        await make_corpus(writes, embedding=EXTERNAL)
        yield writes, checks


@pytest.fixture
async def two(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Services, Services]]:
    async with _two(database_url, tmp_path) as both:
        yield both


async def test_g05_verdicts_race_deletes_in_another_process(two: tuple[Services, Services]) -> None:
    """One process deletes, another that knows the chunk well validates at once: never live, however they interleave.

    Other verdicts, on what lives on, are asked for all the time, so that reads are shared.
    """
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    writes, checks = two
    await commit(writes, CORPUS, put("lasting", chunks=[chunk("lasting", 0)]))
    lasting = (await retrieve(checks, k=1)).snapshot
    until = time.monotonic() + RACE_S
    races = 0

    async def race(label: str) -> None:
        nonlocal races
        while time.monotonic() < until:
            keys = [f"{label} {races} {n}" for n in range(BATCH)]
            puts = [put(key, acl=[label], chunks=[chunk(key, 1 + n)]) for n, key in enumerate(keys)]
            await commit(writes, CORPUS, *puts)
            answer = await retrieve(checks, k=BATCH + 1, principals=[label])
            refs = {hit.document.key: hit.ref for hit in answer.hits}
            for key in keys:
                await one_race(answer.snapshot, label, key, refs[key])
                races += 1

    async def one_race(token: str, label: str, key: str, ref: int) -> None:
        cited: dict[str, Any] = {"scope": "cited", "citations": [{"ref": ref}], "principals": [label]}
        before = asyncio.create_task(_after(chance.random() / 500, validate(checks, token, **cited)))
        made = await commit(writes, CORPUS, delete(key))
        after = await validate(checks, token, **cited)
        assert (["deleted"], True) == (statuses(after), after.epoch >= made.epoch), f"seed {seed}"
        assert statuses(await before) in (["live"], ["deleted"])

    async def bystand() -> None:
        while time.monotonic() < until:
            assert ["live"] == statuses(await validate(checks, lasting)), f"seed {seed}"
            await asyncio.sleep(chance.random() / 1000)

    await asyncio.gather(*(race(f"key{n}") for n in range(RACERS)), bystand(), bystand())
    assert races >= RACES_MIN


async def _after(seconds: float, wanted: Awaitable[T]) -> T:
    await asyncio.sleep(seconds)
    return await wanted


async def _warmed(writes: Services, checks: Services) -> str:
    """A snapshot of one chunk that the checking process has in its view."""
    await commit(writes, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    token = (await retrieve(checks)).snapshot
    assert ["live"] == statuses(await validate(checks, token))
    return token


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (delete("a"), "deleted"),
        (put("a", chunks=[chunk("a2", 1)]), "superseded"),
        (set_acl("a", "group:hr"), "forbidden"),
        (rename("a", "b"), "live"),
    ],
)
async def test_g05_a_process_with_a_warm_view_sees_another_ones_commit(
    two: tuple[Services, Services], change: wire.Operation, status: str
) -> None:
    writes, checks = two
    token = await _warmed(writes, checks)
    made = await commit(writes, CORPUS, change)
    answer = await validate(checks, token)
    assert ([status], made.epoch) == (statuses(answer), answer.epoch)


async def test_g05_a_view_that_answers_without_looking_passes_a_dead_citation(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the newest head seen, in place of a fresh one."""
    writes, checks = two
    token = await _warmed(writes, checks)
    await commit(writes, CORPUS, delete("a"))

    async def known(view: CorpusView) -> Head:
        assert view.last is not None
        return view.last

    with monkeypatch.context() as without:
        without.setattr(CorpusView, "fresh", known)
        assert ["live"] == statuses(await validate(checks, token))
    assert ["deleted"] == statuses(await validate(checks, token))


class Slow:
    """Looking chunks up takes until the test says so; what is found is as old as the look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looked, self.release = asyncio.Event(), asyncio.Event()
        self._look = chunks.records
        monkeypatch.setattr(chunks, "records", self._records)

    async def _records(self, *asked: object) -> Records:
        found = await self._look(*asked)  # type: ignore[arg-type]
        self.looked.set()
        await self.release.wait()
        return found


async def test_g05_a_record_read_before_a_commit_is_not_kept_after_it(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that began before a commit and ends after the view has forgotten the document leaves nothing."""
    writes, checks = two
    await commit(writes, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    token = (await retrieve(writes)).snapshot
    slow = Slow(monkeypatch)
    early = asyncio.create_task(validate(checks, token))
    await slow.looked.wait()
    await commit(writes, CORPUS, delete("a"))
    view = await checks.views.get(CORPUS)
    await view.fresh()
    slow.release.set()
    assert ["live"] == statuses(await early)
    assert ["deleted"] == statuses(await validate(checks, token))


async def test_g05_keeping_whatever_comes_passes_a_dead_citation(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The anomaly: the same race with a view that does not ask of which epoch a record is."""

    def keep(view: CorpusView, found: Records) -> object:
        view._remember(found.by_id)
        return found.by_id

    monkeypatch.setattr(CorpusView, "_noted", keep)
    writes, checks = two
    await commit(writes, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    token = (await retrieve(writes)).snapshot
    slow = Slow(monkeypatch)
    early = asyncio.create_task(validate(checks, token))
    await slow.looked.wait()
    await commit(writes, CORPUS, delete("a"))
    await (await checks.views.get(CORPUS)).fresh()
    slow.release.set()
    await early
    assert ["live"] == statuses(await validate(checks, token))


async def test_g05_more_touched_documents_than_a_view_asks_for_empty_it(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the list of touched documents may be incomplete, nothing that was known is believed."""
    monkeypatch.setattr("ragver.liveness.TOUCHED_DOCUMENTS_MAX", 2)
    writes, checks = two
    keys = [f"key{n}" for n in range(5)]
    await commit(writes, CORPUS, *(put(key, chunks=[chunk(key, n)]) for n, key in enumerate(keys)))
    token = (await retrieve(checks)).snapshot
    assert ["live"] * 5 == statuses(await validate(checks, token))
    await commit(writes, CORPUS, *(delete(key) for key in keys))
    assert ["deleted"] * 5 == statuses(await validate(checks, token))


async def test_g05_a_view_keeps_only_so_many_records(
    two: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full view lets go of the oldest, with everything that points to them, and stays right."""
    monkeypatch.setattr("ragver.liveness.RECORDS_MAX", 3)
    writes, checks = two
    await commit(writes, CORPUS, *(put(f"key{n}", chunks=[chunk(f"text {n}", n)]) for n in range(8)))
    token = (await retrieve(checks)).snapshot
    view = await checks.views.get(CORPUS)
    assert (3, 3) == (len(view._records), len(view._chunks_of))
    await commit(writes, CORPUS, delete("key7"), delete("key0"))
    assert ["deleted", *["live"] * 6, "deleted"] == statuses(await validate(checks, token))


async def test_g05_a_ledger_that_was_set_back_is_believed(two: tuple[Services, Services]) -> None:
    """A head below the one seen, as after restoring a backup: nothing that was known is kept."""
    writes, checks = two
    token = await _warmed(writes, checks)
    await commit(writes, CORPUS, put("b", chunks=[chunk("b1", 2)]))
    view = await checks.views.get(CORPUS)
    await view.fresh()
    assert view._records
    await sql(checks, "UPDATE corpus SET epoch = 1")
    await sql(checks, "DELETE FROM chunk WHERE born_epoch = 1")
    assert ["unknown"] == statuses(await validate(checks, token))


async def test_g05_another_process_of_the_same_kind_shares_nothing(two: tuple[Services, Services]) -> None:
    """The helper that stands for a process in other tests has a view of its own."""
    writes, _ = two
    other = await second_process(writes)
    await commit(writes, CORPUS, put("a", chunks=[chunk("a1", 1)]))
    assert (await other.views.get(CORPUS)).last is None
    assert ChunkId(0) not in (await other.views.get(CORPUS))._records
