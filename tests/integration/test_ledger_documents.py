"""Documents come out of the ledger as they were put, at every epoch, and their dead chunks leave tombstones."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import DocumentNotFound, EpochAhead, InvalidRequest
from ragver.types import Cause, DocumentStatus
from tests.support.ledger import query
from tests.support.services import CORPUS, commit, delete, make_corpus, put, rename, set_acl, set_metadata

ODD_TEXTS = [
    "",
    " ",
    "\n\n\n",
    "\ufeff# with a byte order mark\r\n\r\nand Windows lines\r\n",
    "e\u0301 is not \u00e9, and \u212b is not \u00c5",
    "👩\u200d👩\u200d👧 \U0001f1ea\U0001f1f8 \u202eright to left\u202c \u2028 \u0085 \x01\x1b[31m",
    "''; DROP TABLE chunk; -- \\ \" {1,NULL} :corpus $1 %s",
    "NULL",
    "no end" * 2_000,
    "word " * 2_000 + "\n" + "行" * 3_000,
]
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=3_000)


def chunks(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


async def document(services: Services, key: str = "a", at_epoch: int | None = None) -> wire.Document:
    return await services.catalog.document(CORPUS, key, at_epoch)


async def ids(services: Services, key: str = "a", at_epoch: int | None = None) -> dict[str, str]:
    """The chunk ids by text."""
    return {chunk.text: chunk.chunk_id for chunk in (await document(services, key, at_epoch)).chunks}


# ── round trips ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
async def test_text_comes_out_as_it_was_put(services: Services, text: str) -> None:
    """Not a character is lost, changed or added, wherever the text was cut."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", text))
    found = await document(services)
    assert text == found.text
    assert text == "".join(chunk.text for chunk in found.chunks)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
async def test_any_text_comes_out_as_it_was_put(services: Services, texts: list[str]) -> None:
    """Every version is read back exactly, also when chunks of the one before it were kept."""
    if not await services.catalog.corpora():
        await make_corpus(services)
    for text in texts:
        made = await commit(services, CORPUS, put("a", text))
        assert text == (await document(services, at_epoch=made.epoch)).text


async def test_an_empty_document_exists_and_has_no_chunks(services: Services) -> None:
    """It is listed and read like any other."""
    await make_corpus(services)
    made = await commit(services, CORPUS, put("a", ""))
    assert (DocumentStatus.CREATED, 0) == (made.documents[0].status, made.documents[0].chunks_added)
    assert ("", []) == ((await document(services)).text, (await document(services)).chunks)
    assert ["a"] == [found.key for found in (await services.catalog.documents(CORPUS, "", None, None, 10)).documents]


async def test_chunks_that_the_client_cut_stay_as_they_are(services: Services) -> None:
    """Order, doubles and empty pieces included."""
    await make_corpus(services)
    pieces = ["two", "one", "", "two", "  "]
    await commit(services, CORPUS, put("a", chunks=chunks(*pieces)))
    found = await document(services)
    assert pieces == [chunk.text for chunk in found.chunks]
    assert len(pieces) == len({chunk.chunk_id for chunk in found.chunks})


async def test_everything_about_a_document_is_kept(services: Services) -> None:
    """Title, URI, metadata and labels come back as they were given, and a put resets what it leaves out."""
    await make_corpus(services)
    metadata = {"nested": {"list": [1, 2.5, None, True, "é"]}, "big": 2**53, "tiny": 1e-300}
    await commit(
        services, CORPUS, put("a", "x", title="A “title”", uri="https://x/y?z", metadata=metadata, acl=["g:h"])
    )
    found = await document(services)
    assert ("A “title”", "https://x/y?z", metadata, ["g:h"]) == (found.title, found.uri, found.metadata, found.acl)

    await commit(services, CORPUS, put("a", "x"))
    found = await document(services)
    assert (None, None, {}, ["*"], 2) == (found.title, found.uri, found.metadata, found.acl, found.version)


async def test_each_operation_makes_the_version_that_it_says(services: Services) -> None:
    """Put, access, metadata, rename and delete, each read back at its epoch afterwards."""
    await make_corpus(services)
    steps: list[tuple[wire.Operation, DocumentStatus]] = [
        (put("a", "x"), DocumentStatus.CREATED),
        (set_acl("a", "g:h"), DocumentStatus.UPDATED),
        (set_metadata("a", year=2025), DocumentStatus.UPDATED),
        (rename("a", "b"), DocumentStatus.RENAMED),
        (put("b", "y", metadata={"year": 2025}, acl=["g:h"]), DocumentStatus.UPDATED),
        (put("b", "y", metadata={"year": 2025}, acl=["g:h"]), DocumentStatus.UNCHANGED),
        (delete("b"), DocumentStatus.DELETED),
    ]
    for operation, status in steps:
        (change,) = (await commit(services, CORPUS, operation)).documents
        assert status == change.status

    def seen(found: wire.Document) -> tuple[object, ...]:
        return found.version, found.text, found.metadata, found.acl, found.born_epoch, found.died_epoch

    year = {"year": 2025}
    assert (1, "x", {}, ["*"], 1, 2) == seen(await document(services, "a", 1))
    assert (2, "x", {}, ["g:h"], 2, 3) == seen(await document(services, "a", 2))
    assert (3, "x", year, ["g:h"], 3, 4) == seen(await document(services, "a", 3))
    assert (4, "x", year, ["g:h"], 4, 5) == seen(await document(services, "b", 4))
    assert (5, "y", year, ["g:h"], 5, 7) == seen(await document(services, "b", 5))
    assert await document(services, "b", 5) == await document(services, "b", 6)
    for key, epoch in (("b", 3), ("a", 4), ("b", 7), ("a", 0), ("b", None)):
        with pytest.raises(DocumentNotFound):
            await document(services, key, epoch)
    with pytest.raises(EpochAhead):
        await document(services, "a", 8)


async def test_versions_tell_the_whole_history(services: Services) -> None:
    """A document's versions follow it through renames, with why each ended."""
    await make_corpus(services)
    for operation in (put("a", "x", title="t"), put("a", "y"), rename("a", "b"), delete("b")):
        await commit(services, CORPUS, operation)
    found = (await services.catalog.versions(CORPUS, "b")).versions
    expected = [
        (1, "a", 1, 2, Cause.SUPERSEDED, "t"),
        (2, "a", 2, 3, Cause.SUPERSEDED, None),
        (3, "b", 3, 4, Cause.DELETED, None),
    ]
    assert expected == [(v.version, v.key, v.born_epoch, v.died_epoch, v.cause, v.title) for v in found]
    with pytest.raises(DocumentNotFound):
        await services.catalog.versions(CORPUS, "never")


async def test_a_key_put_again_goes_on_counting(services: Services) -> None:
    """After a delete the next version under the key is a higher one, so that an old version number fits nothing."""
    await make_corpus(services)
    for operation in (put("a", "x"), delete("a"), put("a", "x")):
        await commit(services, CORPUS, operation)
    assert 2 == (await document(services)).version


async def test_documents_exchange_their_keys_in_one_commit(services: Services) -> None:
    """Keys need to be unique only after the last operation."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "x"), put("b", "y"))
    before = await ids(services, "a")
    await commit(services, CORPUS, rename("a", "c"), rename("b", "a"), rename("c", "b"))
    assert ("y", "x") == ((await document(services, "a")).text, (await document(services, "b")).text)
    assert before == await ids(services, "b")


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_edit_keeps_the_chunks_that_did_not_change(services: Services) -> None:
    """Also when they move, and the document is renamed; what is new has higher ids."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", chunks=chunks("one", "two", "three")))
    before = await ids(services)
    made = await commit(services, CORPUS, put("a", chunks=chunks("three", "new", "one")), rename("a", "b"))
    after = await ids(services, "b")
    assert (1, 2, 1) == (
        made.documents[0].chunks_added,
        made.documents[0].chunks_kept,
        made.documents[0].chunks_removed,
    )
    assert (before["one"], before["three"]) == (after["one"], after["three"])
    assert int(after["new"]) > max(map(int, before.values()))


async def test_dead_text_put_again_is_a_new_chunk(services: Services) -> None:
    """A dead chunk never comes back: neither within its document, nor after a delete, nor within one commit."""
    await make_corpus(services)
    seen: list[str] = []
    for operations in (
        [put("a", "same")],
        [put("a", "other")],
        [put("a", "same")],
        [delete("a"), put("a", "same")],
        [delete("a")],
        [put("a", "same")],
    ):
        await commit(services, CORPUS, *operations)
        if not isinstance(operations[-1], wire.Delete):
            seen += (await ids(services)).values()
    assert sorted(set(seen), key=int) == seen


async def test_equal_texts_in_two_documents_are_two_chunks(services: Services) -> None:
    """Chunks are kept within a document only: access belongs to the document."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "same"), put("b", "same"))
    assert (await ids(services, "a"))["same"] != (await ids(services, "b"))["same"]


async def test_tombstones_tell_when_and_why(services: Services) -> None:
    """Of a dead chunk its ids, epochs and cause stay."""
    await make_corpus(services)
    for operation in (put("a", chunks=chunks("one", "two")), put("a", chunks=chunks("two")), delete("a")):
        await commit(services, CORPUS, operation)
    one, two = sorted(map(int, (await ids(services, at_epoch=1)).values()))
    rows = await query(services.database.url, "SELECT id, born_epoch, died_epoch, cause FROM chunk ORDER BY id")
    assert [(one, 1, 2, "superseded"), (two, 1, 3, "deleted")] == [tuple(row) for row in rows]


async def test_chunk_ids_are_above_every_ref(services: Services) -> None:
    """A number in a citation is either a ref or a chunk id."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "x"))
    assert int((await ids(services))["x"]) > 100_000


# ── listing and feed ─────────────────────────────────────────────────────────────────────────────────────────

KEYS = ["", "B", "a", "a%b", "a_b", "a/1", "a/10", "a/2", "ä", "b/1", "日本"]


async def pages(services: Services, prefix: str, at_epoch: int | None, limit: int) -> list[list[str]]:
    """All pages of a listing, as keys."""
    found, cursor = [], None
    while True:
        page = await services.catalog.documents(CORPUS, prefix, at_epoch, cursor, limit)
        found.append([document.key for document in page.documents])
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("prefix", ["", "a", "a/1", "a%", "a_", "ä", "zz"])
async def test_listing_pages_through_a_prefix_bytewise(services: Services, prefix: str, limit: int) -> None:
    """Every document once, in the order of the bytes of its key; wildcards of SQL mean nothing."""
    await make_corpus(services)
    keys = KEYS[1:]
    await commit(services, CORPUS, *(put(key, key) for key in keys))
    found = await pages(services, prefix, None, limit)
    expected = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
    assert expected == [key for page in found for key in page]
    assert all(len(page) == limit for page in found[:-1])


async def test_a_listing_goes_on_at_the_epoch_where_it_began(services: Services) -> None:
    """What is committed while somebody pages does not disturb the pages."""
    await make_corpus(services)
    await commit(services, CORPUS, *(put(key, "x") for key in "abcd"))
    first = await services.catalog.documents(CORPUS, "", None, None, 2)
    await commit(services, CORPUS, delete("c"), put("cc", "x"), rename("d", "e"))
    second = await services.catalog.documents(CORPUS, "", None, first.next_cursor, 2)
    assert ["c", "d"] == [found.key for found in second.documents]
    assert [["a", "b", "cc", "e"]] == await pages(services, "", None, 10)
    assert [["a", "b", "c", "d"]] == await pages(services, "", 1, 10)
    assert [[]] == await pages(services, "", 0, 10)


@pytest.mark.parametrize("content", ["", "x", "1:a", "one:a", ":a", "0:\x00", f"{'9' * 30}:a"])
async def test_a_cursor_that_was_not_given_out_is_refused(services: Services, content: str) -> None:
    """An error of the caller's, whatever it is made of."""
    await make_corpus(services)
    cursor = base64.urlsafe_b64encode(content.encode()).decode()
    with pytest.raises(InvalidRequest):
        await services.catalog.documents(CORPUS, "", None, cursor, 2)


async def test_the_feed_tells_every_commit_once(services: Services) -> None:
    """Page by page after an epoch, oldest first, with who, why and what."""
    await make_corpus(services)
    made = [
        await commit(services, CORPUS, put("a", str(n)), actor="ada", reason=f"n {n}", idempotency_key=f"k{n}")
        for n in range(5)
    ]
    feed = [await services.catalog.commits(CORPUS, since, 2) for since in (0, 2, 4, 5, 99)]
    assert [[1, 2], [3, 4], [5], [], []] == [[entry.epoch for entry in page] for page in feed]
    entries = [entry for page in feed for entry in page]
    assert [(one.committed_at, one.documents) for one in made] == [(e.committed_at, e.documents) for e in entries]
    assert [("ada", f"n {n}", f"k{n}") for n in range(5)] == [(e.actor, e.reason, e.idempotency_key) for e in entries]
