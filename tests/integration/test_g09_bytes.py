"""G9: after the closing steps, no byte of what was erased is in any file of either store."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import DocumentExists
from ragver.index.scoring import normalised
from ragver.ledger.plan import Piece
from ragver.types import Distance
from tests.support.ledger import query
from tests.support.services import CORPUS, caught_up, commit, make_corpus, open_test_services, put, rename, set_metadata

pytestmark = [pytest.mark.guarantee(9), pytest.mark.slow]

DIMENSIONS = 64
OTHERS = 300


def vector(seed: int) -> list[float]:
    drawn = np.random.default_rng(seed).standard_normal((1, DIMENSIONS)).astype(np.float32)
    return [float(number) for number in normalised(Distance.COSINE, drawn)[0]]


def secret() -> str:
    """Not compressible, so that a search for its bytes would find it in compressed pages too."""
    return f"{secrets.token_hex(8)} {secrets.token_hex(8)}"


def files_with(directory: Path, needles: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Which files hold which of the needles; those that none holds are left out."""
    found: dict[str, list[str]] = {}
    for path in directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for name, needle in needles.items():
                if needle in content:
                    found.setdefault(name, []).append(str(path.relative_to(directory)))
    return found


def chunk(text: str, seed: int) -> dict[str, Any]:
    return {"text": text, "vector": vector(seed)}


async def lived(services: Services, words: Mapping[str, str]) -> None:
    """A document with a history that gets everywhere: versions, a rename, a failed commit, statistics, an index."""
    long = f"{words['long']} {secrets.token_urlsafe(8_000)}"
    first: dict[str, Any] = {
        "title": words["title"],
        "uri": words["uri"],
        "metadata": {"team": words["team"], "free": words["free"]},
    }
    texts = [chunk(words["text"], 1), chunk(long, 2)]
    await commit(
        services,
        CORPUS,
        put(words["key"], chunks=texts, **first),
        idempotency_key=f"put {words['key']}",
        reason=f"about {words['key']}",
    )
    await commit(services, CORPUS, put(words["key"], chunks=[chunk(words["second"], 3)]))
    await commit(services, CORPUS, set_metadata(words["key"], team=words["team"]))
    await commit(services, CORPUS, put("other", text=None, chunks=[chunk("stays", 9)]))
    with pytest.raises(DocumentExists):
        await commit(services, CORPUS, rename(words["key"], "other"))
    await commit(services, CORPUS, rename(words["key"], words["new_key"]))
    for number in range(OTHERS):
        await commit(services, CORPUS, put(f"doc{number}", chunks=[chunk(f"text {number}", 100 + number)]))
    await query(services.database.url, "ANALYZE")
    await caught_up(services)


def needles(words: Mapping[str, str], request_hash: bytes) -> dict[str, bytes]:
    """The bytes to search for: every word, the vectors, and the hashes by which a guess could be confirmed."""
    brought = {f"vector {seed}": np.array(vector(seed), "<f4").tobytes() for seed in (1, 2, 3)}
    piece = Piece(words["text"], np.array(vector(1), np.float32))
    hashes = {"content hash": piece.content_hash, "request hash": request_hash}
    return {**{name: word.encode() for name, word in words.items()}, **brought, **hashes}


async def test_g09_no_byte_is_left_in_any_file(data_dir: Path) -> None:
    """Found in both stores' files before the erasure, and after it too until the closing steps are done; then not.

    Data files, write-ahead log, statistics, TOAST, the server's log; segments, payloads, the engine's log.
    """
    names = ("text", "second", "long", "title", "uri", "team", "free", "key", "new_key")
    words = {name: secret() for name in names}
    async with open_test_services(None, data_dir, indexing=True) as services:
        embedding = {"provider": "external", "dimensions": DIMENSIONS}
        await make_corpus(services, embedding=embedding, filterable={"team": "keyword"})
        await lived(services, words)
        (row,) = await query(services.database.url, "SELECT request_hash FROM commit_log WHERE epoch = 1")
        wanted = needles(words, row["request_hash"])
        await query(services.database.url, "CHECKPOINT")
        assert wanted.keys() == files_with(data_dir / "postgres", wanted).keys()
        assert {"team", "vector 3"} <= files_with(data_dir / "index", wanted).keys()

        request = wire.ErasureRequest(keys=[words["key"]], reason="asked for", keys_too=True)
        receipt = await services.erasures.erase(CORPUS, request)
        assert "complete" == receipt.state
        await query(services.database.url, "CHECKPOINT")
        # The anomaly: what the receipt says that it cannot speak for is really there.
        assert {"text", "title", "key", "vector 1"} <= files_with(data_dir / "postgres", wanted).keys()
        assert {"team", "vector 3"} <= files_with(data_dir / "index", wanted).keys()

        done = await services.retention.collect(CORPUS, full=True)
        assert all(step.done for step in done.full), done.full
        assert {} == files_with(data_dir, wanted)
        assert (await services.catalog.verify_log(CORPUS, None)).intact
        assert (await services.erasures.check(CORPUS, int(receipt.id))).erased
        assert "stays" == (await services.catalog.document(CORPUS, "other", None)).text
    assert {} == files_with(data_dir, wanted)
