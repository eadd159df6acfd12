"""Backup and restore: a ledger beside an index of another time, and what was handed out on a timeline that is lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import EpochAhead, SnapshotForeign
from ragver.liveness import CorpusView
from ragver.types import Level
from tests.support.backups import dump, restore
from tests.support.drift import reconcile
from tests.support.five_commits import ALIVE, COMMITS, at_every_epoch
from tests.support.services import CORPUS, caught_up, commit, delete, make_corpus, open_test_services, put
from tests.support.spine import EXTERNAL, chunk, index_all, retrieve, sql, statuses, texts, validate

pytestmark = pytest.mark.guarantee(6)


async def prepared(services: Services, commits: int) -> None:
    await make_corpus(services, embedding=EXTERNAL)
    for operations in COMMITS[:commits]:
        await commit(services, CORPUS, *operations)
    await index_all(services)


async def lost_timeline(services: Services) -> str:
    """Two commits that no backup has, indexed, and the token of a retrieval after them."""
    await commit(services, CORPUS, put("lost", chunks=[chunk("lost1", 0)]))
    await commit(services, CORPUS, delete("c"))
    await index_all(services)
    answer = await retrieve(services)
    assert (5, ["lost1", "a1", "a3"]) == (answer.epoch, texts(answer))
    return answer.snapshot


async def other_timeline(services: Services) -> None:
    """Two other commits, under the same numbers."""
    await commit(services, CORPUS, put("a", chunks=[chunk("a9", 1)]))
    await commit(services, CORPUS, put("e", chunks=[chunk("e1", 2)]))


async def test_g06_a_ledger_that_was_restored_refuses_what_it_never_said(database_url: str, tmp_path: Path) -> None:
    """An older ledger beside a newer index. A token of the lost timeline is refused, at first as not issued, and when
    its number comes again, as foreign; one from before the backup is good. Nothing dead is cited meanwhile: answers
    are thinner where the index says that a chunk is dead, until a reconciliation has put it right."""
    backup = tmp_path / "backup"
    async with open_test_services(database_url, tmp_path / "data") as services:
        await prepared(services, 3)
        dump(database_url, backup)
        early = (await retrieve(services)).snapshot
        lost = await lost_timeline(services)
    restore(backup, database_url)
    async with open_test_services(database_url, tmp_path / "data") as services:
        assert ALIVE[3] == texts(await retrieve(services))
        assert ["live"] * 3 == statuses(await validate(services, early))
        with pytest.raises(EpochAhead):
            await validate(services, lost)
        await other_timeline(services)
        for refused in (
            lambda: validate(services, lost),
            lambda: retrieve(services, snapshot=lost),
            lambda: retrieve(services, snapshot=lost, level=Level.AT_LEAST),
            lambda: services.pins.add(CORPUS, wire.PinRequest(snapshot=lost, ttl_s=60)),
        ):
            with pytest.raises(SnapshotForeign):
                await refused()
        assert ["live", "superseded", "superseded"] == statuses(await validate(services, early))
        assert {"a9", "e1"} == set(texts(await retrieve(services)))
        await index_all(services)
        run = await reconcile(services, repair=True, max_drift_ratio=1.0)
        assert "forked" == run.history
        assert {"a9", "e1", "c1"} == set(texts(await retrieve(services)))
        assert ALIVE[3] == texts(await retrieve(services, epoch=3))
        assert 0 == (await reconcile(services, verify_vectors=True)).drift


async def test_g06_anomaly_numbers_alone_take_a_token_of_a_lost_timeline(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hits of the lost retrieval are taken for chunks of this timeline that have the same ids by now: text that
    the reader never saw is called live."""
    backup = tmp_path / "backup"
    async with open_test_services(database_url, tmp_path / "data") as services:
        await prepared(services, 3)
        dump(database_url, backup)
        lost = await lost_timeline(services)
    restore(backup, database_url)

    async def trusting(*_: object) -> None:
        return None

    monkeypatch.setattr(CorpusView, "require", trusting)
    async with open_test_services(database_url, tmp_path / "data") as services:
        await other_timeline(services)
        assert "live" in statuses(await validate(services, lost, citations=[{"ref": 1}], scope="cited"))


async def test_g05_a_restore_under_a_living_process_is_noticed(database_url: str, tmp_path: Path) -> None:
    """What the process had read of the lost timeline is not believed any more, also when the new one is longer."""
    backup = tmp_path / "backup"
    async with open_test_services(database_url, tmp_path / "data") as services:
        await prepared(services, 3)
        early = (await retrieve(services)).snapshot
        dump(database_url, backup)
        lost = await lost_timeline(services)
        assert ["live"] * 3 == statuses(await validate(services, lost))
        restore(backup, database_url)
        async with open_test_services(database_url, tmp_path / "other") as other:
            await other_timeline(other)
            await commit(other, CORPUS, put("f", chunks=[chunk("f1", 3)]))
        with pytest.raises(SnapshotForeign):
            await validate(services, lost)
        assert ["live", "superseded", "superseded"] == statuses(await validate(services, early))
        assert {"a9", "e1", "f1"} == set(texts(await retrieve(services)))


async def test_g06_an_index_that_was_restored_cites_nothing_dead_and_catches_up(
    database_url: str, tmp_path: Path
) -> None:
    """A newer ledger beside an older index, as it was after the second commit."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await prepared(services, 2)
    shutil.copytree(tmp_path / "data" / "index", tmp_path / "index")
    async with open_test_services(database_url, tmp_path / "data") as services:
        for operations in COMMITS[2:]:
            await commit(services, CORPUS, *operations)
        await index_all(services)
    shutil.rmtree(tmp_path / "data" / "index")
    shutil.copytree(tmp_path / "index", tmp_path / "data" / "index")
    async with open_test_services(database_url, tmp_path / "data") as services:
        # Thinner it may be, but nothing in it is dead.
        assert set(texts(await retrieve(services))) <= set(ALIVE[5])
    async with open_test_services(database_url, tmp_path / "data", indexing=True) as services:
        async with asyncio.timeout(20):
            while True:
                await caught_up(services)
                if await at_every_epoch(services) == ALIVE:
                    break
                await asyncio.sleep(0.05)


async def test_g06_a_ledger_beside_no_index_fills_one(database_url: str, tmp_path: Path) -> None:
    """The plain way back: restore the ledger alone, and let the index be built from it."""
    backup = tmp_path / "backup"
    async with open_test_services(database_url, tmp_path / "data") as services:
        await prepared(services, 5)
        dump(database_url, backup)
        await sql(services, "UPDATE chunk SET text = 'damaged'")
    restore(backup, database_url)
    shutil.rmtree(tmp_path / "data" / "index")
    async with open_test_services(database_url, tmp_path / "data", indexing=True) as services:
        async with asyncio.timeout(20):
            while True:
                if (await services.catalog.corpus(CORPUS)).applied_epoch == 5 and await filled(services):
                    break
                await asyncio.sleep(0.05)
        assert ALIVE == await at_every_epoch(services)
        assert (await services.catalog.verify_log(CORPUS, None)).intact


async def filled(services: Services) -> bool:
    from tests.support.spine import collection

    where = await collection(services)
    return await services.index.exists(where) and await services.index.count(where) == 6
