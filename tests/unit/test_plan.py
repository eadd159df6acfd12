"""The planner: what operations do to documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import wire
from ragver.errors import DocumentExists, DocumentNotFound, RagverError, VersionConflict
from ragver.ledger.plan import DocumentPlan, DocumentState, Piece, PreparedOperation, PreparedPut, Slot, plan
from ragver.types import Cause, ChunkId, DocumentId, DocumentStatus, FieldType

FILTERABLE = {"team": FieldType.KEYWORD}


def put(key: str, *texts: str, **more: Any) -> PreparedPut:
    operation = wire.Put(op="put", key=key, chunks=[wire.ChunkInput(text=text) for text in texts], **more)
    pieces = [Piece(text) for text in texts]
    return PreparedPut(operation, pieces, [piece.content_hash for piece in pieces])


def delete(key: str, **more: Any) -> wire.Delete:
    return wire.Delete(op="delete", key=key, **more)


def rename(key: str, new_key: str) -> wire.Rename:
    return wire.Rename(op="rename", key=key, new_key=new_key)


def living(key: str, *texts: str, version: int = 1, first_chunk: int = 100, number: int = 1) -> DocumentState:
    slots = [Slot(Piece(text).content_hash, ChunkId(first_chunk + place)) for place, text in enumerate(texts)]
    return DocumentState(
        key=key, document_id=DocumentId(number), version=version, alive=True, acl=["*"], metadata={}, slots=slots
    )


def planned(
    operations: Sequence[PreparedOperation], *documents: DocumentState, newest: dict[str, int] | None = None
) -> list[DocumentPlan]:
    seen = {document.key: document.version for document in documents} | (newest or {})
    return plan(operations, documents, seen, FILTERABLE)


def test_new_document_is_created_with_version_one() -> None:
    """The first put of a key makes version 1 with all its chunks."""
    (made,) = planned([put("a", "one", "two")])
    assert made.answer() == wire.DocumentChange(
        key="a", version=1, status=DocumentStatus.CREATED, chunks_added=2, chunks_kept=0, chunks_removed=0
    )


def test_edit_keeps_chunks_whose_content_did_not_change() -> None:
    """Only what is new is born, only what is gone dies; kept chunks keep their ids in the new order."""
    (made,) = planned([put("a", "two", "new", "one")], living("a", "one", "two", "old"))
    assert [slot.chunk_id for slot in made.after.slots] == [101, None, 100]
    assert made.deaths == {102: Cause.SUPERSEDED}
    assert (made.status, made.after.version) == (DocumentStatus.UPDATED, 2)


def test_repeated_content_keeps_each_chunk_once() -> None:
    """Two equal chunks are two chunks; with one of them gone, one dies."""
    (made,) = planned([put("a", "same")], living("a", "same", "same"))
    assert made.kept == [100]
    assert made.deaths == {101: Cause.SUPERSEDED}


def test_same_put_again_changes_nothing() -> None:
    """A put of what is there already answers `unchanged` and makes no version."""
    (made,) = planned([put("a", "one")], living("a", "one"))
    assert (made.status, made.after.version, made.births, made.deaths) == (DocumentStatus.UNCHANGED, 1, [], {})


def test_deleted_text_put_again_is_a_new_chunk() -> None:
    """A dead chunk never comes back, also not within one commit."""
    (made,) = planned([delete("a"), put("a", "one")], living("a", "one"))
    assert made.deaths == {100: Cause.DELETED}
    assert (len(made.births), made.after.version, made.status) == (1, 2, DocumentStatus.UPDATED)


def test_what_comes_and_goes_within_a_commit_was_never_there() -> None:
    """A document put and deleted in one commit leaves nothing to write."""
    (made,) = planned([put("a", "one"), delete("a")])
    assert (made.changed, made.births, made.deaths, made.status) == (False, [], {}, DocumentStatus.UNCHANGED)


def test_rename_keeps_all_chunks() -> None:
    """A rename makes a version under the new key and touches no chunk."""
    (made,) = planned([rename("a", "b")], living("a", "one"))
    assert (made.status, made.after.key, made.after.version) == (DocumentStatus.RENAMED, "b", 2)
    assert (made.kept, made.deaths, made.payload_changed) == ([100], {}, False)


def test_rename_may_take_the_place_of_a_document_deleted_before_it() -> None:
    """Operations apply in order: the key is free by then."""
    gone, moved = planned(
        [delete("b"), rename("a", "b")], living("a", "one"), living("b", "two", version=5, first_chunk=200, number=2)
    )
    assert (gone.status, gone.deaths) == (DocumentStatus.DELETED, {200: Cause.DELETED})
    assert (moved.status, moved.after.key, moved.after.version) == (DocumentStatus.RENAMED, "b", 6)


def test_keys_can_be_swapped_in_one_commit() -> None:
    """Only the state after the last operation has to be consistent."""
    first, second = planned(
        [rename("a", "x"), rename("b", "a"), rename("x", "b")],
        living("a", "one"),
        living("b", "two", first_chunk=200, number=2),
    )
    assert (first.after.key, second.after.key) == ("b", "a")


def test_versions_of_a_key_only_go_up() -> None:
    """A new document under a key that others held before gets a version that no reader has seen there."""
    (made,) = planned([put("a", "one")], newest={"a": 7})
    assert made.after.version == 8


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([delete("missing")], DocumentNotFound),
        ([rename("missing", "b")], DocumentNotFound),
        ([wire.SetAcl(op="set_acl", key="missing", acl=["*"])], DocumentNotFound),
        ([rename("a", "b")], DocumentExists),
        ([delete("a", if_version=2)], VersionConflict),
        ([put("a", "x", if_version=0)], VersionConflict),
        ([put("new", "x", if_version=1)], VersionConflict),
        ([delete("a"), delete("a")], DocumentNotFound),
    ],
)
def test_operation_that_does_not_fit_is_refused(operations: list[PreparedOperation], error: type[RagverError]) -> None:
    """An operation that does not fit the state before it fails the whole plan."""
    with pytest.raises(error):
        planned(operations, living("a", "one"), living("b", "two", first_chunk=200, number=2))


def test_change_of_access_reaches_the_chunks_that_live_on() -> None:
    """Other labels, or other filterable metadata, have to be shown by the index; other titles need not."""
    (acl,) = planned([wire.SetAcl(op="set_acl", key="a", acl=["group:hr"])], living("a", "one"))
    (team,) = planned([wire.SetMetadata(op="set_metadata", key="a", metadata={"team": "hr"})], living("a", "one"))
    (note,) = planned([wire.SetMetadata(op="set_metadata", key="a", metadata={"note": "x"})], living("a", "one"))
    assert [acl.payload_changed, team.payload_changed, note.payload_changed] == [True, True, False]
    assert [acl.metadata_changed, team.metadata_changed, note.metadata_changed] == [False, True, False]
    assert [made.status for made in (acl, team, note)] == [DocumentStatus.UPDATED] * 3


def test_labels_given_in_the_commit_of_the_death_reach_the_dead() -> None:
    """Old snapshots show a document's dead chunks by its last labels, whenever it was given them."""
    (closed,) = planned([wire.SetAcl(op="set_acl", key="a", acl=["group:hr"]), delete("a")], living("a", "one"))
    (gone,) = planned([delete("a")], living("a", "one"))
    assert [closed.relabelled, gone.relabelled] == [True, False]


_keys = st.sampled_from(["a", "b", "c"])
_texts = st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=4)
_operations = st.lists(
    st.one_of(
        st.builds(lambda key, texts: put(key, *texts), _keys, _texts),
        st.builds(delete, _keys),
        st.builds(rename, _keys, _keys),
    ),
    max_size=8,
)


@given(_operations, _texts, _texts)
def test_plan_agrees_with_a_plain_replay(
    operations: list[PreparedOperation], first: list[str], second: list[str]
) -> None:
    """Whatever the operations, the final texts are those of a dictionary; every chunk lives, dies, or is born once."""
    documents = [living("a", *first), living("b", *second, first_chunk=200, number=2)]
    existing = {slot.chunk_id for document in documents for slot in document.slots}
    texts_of = {slot.content_hash: text for text in ["one", "two", "three", "four"] for slot in living("x", text).slots}
    try:
        plans = planned(operations, *documents)
    except RagverError:
        return
    model = {"a": first, "b": second}
    for operation in operations:
        match operation:
            case PreparedPut():
                model[operation.put.key] = [piece.text for piece in operation.pieces]
            case wire.Delete():
                del model[operation.key]
            case wire.Rename():
                model[operation.new_key] = model.pop(operation.key)
    states = {made.after.key: made.after for made in plans if made.after.alive}
    untouched = {document.key: document for document in documents if all(made.after is not document for made in plans)}
    found = {key: [texts_of[slot.content_hash] for slot in state.slots] for key, state in (untouched | states).items()}
    assert found == model
    dead = {chunk_id for made in plans for chunk_id in made.deaths}
    kept = {slot.chunk_id for state in (untouched | states).values() for slot in state.slots if slot.chunk_id}
    assert dead.isdisjoint(kept)
    assert dead | kept == existing
