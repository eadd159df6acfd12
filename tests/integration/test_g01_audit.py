"""G1: the log's hash chain is walked, and the first row that is not as it was made is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import InvalidRequest
from ragver.ledger import audit
from ragver.ledger.chain import LogRow
from tests.support.five_commits import COMMITS
from tests.support.ledger import check_chain
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services
from tests.support.spine import EXTERNAL, sql

pytestmark = pytest.mark.guarantee(1)


@pytest.fixture
async def logged(database_url: str, tmp_path: Path) -> AsyncIterator[Services]:
    """Five commits, each with an actor and a reason."""
    async with open_test_services(database_url, tmp_path / "data") as services:
        await make_corpus(services, embedding=EXTERNAL)
        for operations in COMMITS:
            await commit(services, CORPUS, *operations, actor="ada", reason="because")
        yield services


async def verified(services: Services, anchor: tuple[int, str] | None = None) -> wire.LogVerification:
    return await services.catalog.verify_log(CORPUS, anchor)


async def test_g01_an_untouched_log_is_intact(logged: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over several pages; and what a second implementation of the chain makes of it is the same."""
    monkeypatch.setattr(audit, "WALK_ROWS", 2)
    found = await verified(logged)
    assert (True, 5, 5, None) == (found.intact, found.head, found.verified, found.broken)
    assert 5 == await check_chain(logged.database.url, CORPUS)
    await commit(logged, CORPUS, delete("b"))
    assert (await verified(logged, (found.head, found.head_hash))).intact


@pytest.mark.parametrize(
    ("tampering", "epoch", "kind"),
    [
        ("UPDATE commit_log SET reason = 'another' WHERE epoch = 3", 3, "altered"),
        ("UPDATE commit_log SET actor = NULL WHERE epoch = 1", 1, "altered"),
        ("UPDATE commit_log SET summary = '[]' WHERE epoch = 2", 2, "altered"),
        ("UPDATE commit_log SET committed_at = committed_at + interval '1 microsecond' WHERE epoch = 4", 4, "altered"),
        ("UPDATE commit_log SET request_hash = sha256('x') WHERE epoch = 5", 5, "altered"),
        ("DELETE FROM commit_log WHERE epoch = 2", 2, "missing"),
        ("DELETE FROM commit_log WHERE epoch = 1", 1, "missing"),
        ("DELETE FROM commit_log WHERE epoch = 5", 5, "truncated"),
        ("DELETE FROM commit_log", 1, "truncated"),
        # A row that was made anew, its hash included, no longer fits the one after it.
        ("UPDATE commit_log SET prev_hash = sha256('x'), hash = sha256('y') WHERE epoch = 3", 3, "unlinked"),
        # The head set back as well, but the rest of the ledger remembers.
        ("WITH cut AS (DELETE FROM commit_log WHERE epoch > 4) UPDATE corpus SET epoch = 4", 5, "truncated"),
        # A row that claims to be redacted needs an erasure that says so.
        ("UPDATE commit_log SET digest = sha256('x'), redacted_by = 7 WHERE epoch = 3", 3, "altered"),
    ],
)
async def test_g01_the_first_broken_row_is_named(logged: Services, tampering: str, epoch: int, kind: str) -> None:
    await sql(logged, tampering)
    found = await verified(logged)
    assert found.broken is not None
    assert (False, epoch, kind) == (found.intact, found.broken.epoch, found.broken.kind)
    assert epoch - 1 == found.verified


async def test_g01_a_redaction_that_no_erasure_proves_is_a_break(logged: Services) -> None:
    """The chain alone would take any content for redacted: the digest of what was there is beside it."""
    (row,) = await logged.database.fetch(audit._ROWS, {"corpus": 1, "after": 2, "upto": 3, "limit": 1})
    digest = audit.log_row(row).content_digest()
    await sql(
        logged,
        f"UPDATE commit_log SET digest = '\\x{digest.hex()}', redacted_by = 7, reason = 'forged' WHERE epoch = 3",
    )
    found = await verified(logged)
    assert found.broken is not None
    assert (3, "redaction_unproven") == (found.broken.epoch, found.broken.kind)


async def test_g01_an_anchor_sees_what_the_ledger_alone_cannot(logged: Services) -> None:
    """With the end cut off everywhere, or the chain computed anew, the log is intact: unless somebody wrote its
    head down."""
    whole = await verified(logged)
    await sql(logged, "DELETE FROM commit_log WHERE epoch > 2")
    await sql(logged, "UPDATE corpus SET epoch = 2")
    await sql(logged, "DELETE FROM chunk")
    await sql(logged, "UPDATE document SET touched_epoch = 2")
    assert (await verified(logged)).intact
    cut = (await verified(logged, (whole.head, whole.head_hash))).broken
    assert cut is not None
    assert (3, "truncated") == (cut.epoch, cut.kind)

    await sql(logged, "UPDATE commit_log SET reason = 'forged' WHERE epoch = 2")
    (row,) = await logged.database.fetch(audit._ROWS, {"corpus": 1, "after": 1, "upto": 2, "limit": 1})
    forged: LogRow = audit.log_row(row)
    genuine = (2, row.hash.hex())
    await sql(logged, f"UPDATE commit_log SET hash = '\\x{forged.link().hex()}' WHERE epoch = 2")
    assert (await verified(logged)).intact
    replaced = (await verified(logged, genuine)).broken
    assert replaced is not None
    assert (2, "replaced") == (replaced.epoch, replaced.kind)


async def test_g01_an_anchor_that_is_no_hash_is_refused(logged: Services) -> None:
    with pytest.raises(InvalidRequest):
        await verified(logged, (1, "z" * 64))
