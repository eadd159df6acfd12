"""Snapshot tokens: what was issued here comes back as it was, and nothing else gets in."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from ragver.errors import SnapshotForeign, SnapshotInvalid
from ragver.tokens import FORMAT, TOKEN_CHARACTERS_MAX, Snapshot, SnapshotTokens, fingerprint
from ragver.types import REF_MAX, ChunkId, CorpusId, Epoch, Lineage

LEDGER = UUID(int=1)
TOKENS = SnapshotTokens("secret", LEDGER)
HERE = CorpusId(7)

SNAPSHOTS = st.builds(
    Snapshot,
    corpus=st.just(HERE),
    lineage=st.text("0123456789abcdef", max_size=16).map(Lineage),
    epoch=st.integers(0, 2**53).map(Epoch),
    chunk_ids=st.lists(st.integers(100_001, 2**63 - 1).map(ChunkId), max_size=20).map(tuple),
    principals=st.lists(st.text(st.characters(codec="utf-8"), max_size=5)).map(fingerprint),
    issued_at_s=st.integers(0, 2**40),
)
A_SNAPSHOT = Snapshot(
    HERE, Epoch(42), Lineage("0f" * 8), (ChunkId(100_003), ChunkId(100_001)), fingerprint(["group:hr"]), 1_700_000_000
)


@given(SNAPSHOTS)
def test_a_token_says_what_was_put_into_it(snapshot: Snapshot) -> None:
    assert snapshot == TOKENS.read(TOKENS.issue(snapshot), HERE)


def test_the_largest_snapshot_fits() -> None:
    """A token of as many hits as a retrieval may return, with ids that do not compress, can be read again."""
    chance = random.Random(1)
    largest = replace(A_SNAPSHOT, chunk_ids=tuple(ChunkId(chance.randrange(2**62, 2**63)) for _ in range(REF_MAX)))
    token = TOKENS.issue(largest)
    assert len(token) < TOKEN_CHARACTERS_MAX // 2
    assert largest == TOKENS.read(token, HERE)


def test_no_changed_character_goes_unnoticed() -> None:
    token = TOKENS.issue(A_SNAPSHOT)
    for place, character in enumerate(token):
        for other in ("A", "B", ".", "-", "\x00", "é"):
            tampered = token[:place] + other + token[place + 1 :]
            if other != character:
                _refused_or_the_same(tampered)


def _refused_or_the_same(token: str) -> None:
    """The last character of a base64 text may have bits that say nothing; then the token is the same."""
    try:
        assert TOKENS.read(token, HERE) == A_SNAPSHOT
    except SnapshotInvalid:
        return
    assert token[:-1] == TOKENS.issue(A_SNAPSHOT)[:-1]


def test_no_missing_or_doubled_part_goes_unnoticed() -> None:
    token = TOKENS.issue(A_SNAPSHOT)
    for place in range(len(token)):
        for tampered in (token[:place], token[place + 1 :], token[:place] + token[place + 1 :], token[:place] + token):
            if tampered != token:
                with pytest.raises(SnapshotInvalid):
                    TOKENS.read(tampered, HERE)


@given(st.text() | st.text(alphabet="ABCab019-_.=") | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_whatever_else_is_sent_is_refused_as_a_token(text: str) -> None:
    """Never another exception, whatever the characters; lone surrogates included."""
    for token in (text, text + "\ud800", "." + text):
        with pytest.raises(SnapshotInvalid):
            TOKENS.read(token, HERE)


def test_a_token_that_is_too_long_is_not_even_looked_at() -> None:
    with pytest.raises(SnapshotInvalid, match="too long"):
        TOKENS.read("A" * (TOKEN_CHARACTERS_MAX + 1), HERE)


@pytest.mark.parametrize("secret", ["", "Secret", "secret "])
def test_another_secret_does_not_open_it(secret: str) -> None:
    with pytest.raises(SnapshotInvalid):
        SnapshotTokens(secret, LEDGER).read(TOKENS.issue(A_SNAPSHOT), HERE)


def test_another_ledger_knows_that_the_token_is_not_its_own() -> None:
    """Also where both ledgers sign with the same secret and count their corpora alike."""
    with pytest.raises(SnapshotForeign, match="another ledger"):
        SnapshotTokens("secret", UUID(int=2)).read(TOKENS.issue(A_SNAPSHOT), HERE)


def test_another_corpus_knows_that_the_token_is_not_its_own() -> None:
    """A corpus that was deleted and made again under its name is another one."""
    with pytest.raises(SnapshotForeign, match="another corpus"):
        TOKENS.read(TOKENS.issue(A_SNAPSHOT), CorpusId(8))


@pytest.mark.parametrize("content", [[FORMAT + 1], [FORMAT + 1, LEDGER.hex, 7, 42, [], "", 0, "more"]])
def test_a_token_of_another_version_is_refused(content: list[object]) -> None:
    """Signed with the right secret, but laid out as no version so far has done it."""
    ours = URLSafeSerializer("secret", salt="ragver.snapshot", signer_kwargs={"digest_method": hashlib.sha256})
    with pytest.raises(SnapshotInvalid, match="format"):
        TOKENS.read(str(ours.dumps(content)), HERE)


def test_a_signature_for_another_purpose_is_none() -> None:
    other = URLSafeSerializer("secret", salt="ragver.else", signer_kwargs={"digest_method": hashlib.sha256})
    with pytest.raises(SnapshotInvalid):
        TOKENS.read(str(other.dumps([FORMAT, LEDGER.hex, 7, 42, [], "", 0])), HERE)


def test_a_fingerprint_tells_sets_of_labels_apart() -> None:
    assert fingerprint(["a", "b"]) == fingerprint(["b", "a", "b"])
    assert len({fingerprint(labels) for labels in (["a", "b"], ["ab"], ["a"], [], ["a", "c"])}) == 5
