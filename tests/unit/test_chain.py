"""What an erasure leaves of a row of the log, and what the chain makes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from ragver.ledger.chain import HASH_BEFORE_FIRST, REDACTED, LogRow, redacted

ROW = LogRow(
    epoch=1,
    committed_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    actor="ada",
    reason="because a is wrong, and a/b.md too",
    idempotency_key="put a/b.md",
    request_hash=b"\x01" * 32,
    documents=[{"key": "a", "version": 1}, {"key": "other", "version": 2}],
    prev_hash=HASH_BEFORE_FIRST,
    hash=b"",
)
GENUINE = replace(ROW, hash=ROW.link())
KEYS = {"a": "erased-1-1", "a/b.md": "erased-1-2"}


def test_keys_go_wherever_they_stand_as_words() -> None:
    """The longer one first, and no letter out of the midst of a word."""
    left = redacted(GENUINE, 1, KEYS, keep_request_hash=False)
    assert "because erased-1-1 is wrong, and erased-1-2 too" == left.reason
    assert "put erased-1-2" == left.idempotency_key
    assert ["erased-1-1", "other"] == [document["key"] for document in left.documents]
    assert (REDACTED, "ada") == (left.request_hash, left.actor)


def test_the_chain_holds_over_a_row_that_was_redacted_twice() -> None:
    """It goes by the digest of what was there at first."""
    once = redacted(GENUINE, 1, {}, keep_request_hash=True)
    twice = redacted(once, 2, KEYS, keep_request_hash=False)
    assert GENUINE.hash == once.link() == twice.link()
    assert GENUINE.content_digest() == once.digest == twice.digest
    assert (2, True) == (twice.redacted_by, twice.content_digest() != GENUINE.content_digest())


def test_without_the_digest_a_redacted_row_breaks_the_chain() -> None:
    left = redacted(GENUINE, 1, KEYS, keep_request_hash=False)
    assert GENUINE.hash != replace(left, digest=None).link()
