"""The judge of the soak finds what is wrong, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.deeds import Cited, Deed, Deeds, Kind, Shown

STAFF = frozenset({"group:staff"})
EVERYBODY = frozenset({"*"})


def _deeds(*deeds: Deed) -> Deeds:
    made = Deeds()
    made.add(Deed(Kind.CREATE, 1, 1, 0.0, 0.5, acl=EVERYBODY))
    made.name("a", 1, 1)
    for deed in deeds:
        made.add(deed)
    return made


def _shown(at_s: float, principals: frozenset[str] = frozenset(), **cited: Any) -> Shown:
    return Shown(
        at_s, (Cited(**{"key": "a", "epoch": 1, "chunk_id": "7", "text": "thirty days", **cited}),), principals
    )


@pytest.mark.parametrize(
    ("deed", "wrong"),
    [
        (Deed(Kind.DELETE, 1, 2, 1.0, 2.0), True),
        (Deed(Kind.ERASE, 1, 2, 1.0, 2.0), True),
        (Deed(Kind.EDIT, 1, 2, 1.0, 2.0, text="twenty days"), True),
        (Deed(Kind.EDIT, 1, 2, 1.0, 2.0, text="As ever: thirty days."), False),
        (Deed(Kind.RELABEL, 1, 2, 1.0, 2.0, acl=STAFF), True),
        (Deed(Kind.RELABEL, 1, 2, 1.0, 2.0, acl=EVERYBODY), False),
        (Deed(Kind.DELETE, 2, 2, 1.0, 2.0), False),
    ],
)
def test_what_is_shown_after_the_fence_has_returned(deed: Deed, wrong: bool) -> None:
    assert wrong == bool(_deeds(deed).wrongs([_shown(2.1)]))


@pytest.mark.parametrize("kind", [Kind.DELETE, Kind.RELABEL])
def test_until_the_fence_has_returned_all_is_well(kind: Kind) -> None:
    deeds = _deeds(Deed(kind, 1, 2, 1.0, 2.0, acl=STAFF))
    assert [] == deeds.wrongs([_shown(0.9), _shown(1.5), _shown(2.0)])
    assert 1 == len(deeds.wrongs([_shown(2.0001)]))


def test_a_chunk_that_came_after_the_delete_is_another_one() -> None:
    deeds = _deeds(Deed(Kind.DELETE, 1, 2, 1.0, 2.0), Deed(Kind.CREATE, 2, 3, 3.0, 4.0, acl=EVERYBODY))
    deeds.name("a", 3, 2)
    assert [] == deeds.wrongs([_shown(9.0, epoch=3)])
    assert 1 == len(deeds.wrongs([_shown(9.0)]))


def test_a_chunk_is_followed_under_the_new_name_of_its_document() -> None:
    deeds = _deeds(Deed(Kind.DELETE, 1, 3, 1.0, 2.0))
    deeds.name("b", 2, 1)
    deeds.name("a", 2, 5)
    assert 1 == len(deeds.wrongs([_shown(2.1, key="b", epoch=2)]))
    assert 1 == len(deeds.wrongs([_shown(2.1, epoch=1)]))
    assert [] == deeds.wrongs([_shown(2.1, epoch=2)])


def test_a_chunk_that_an_edit_removed_does_not_come_back() -> None:
    gone = Deed(Kind.EDIT, 1, 2, 1.0, 2.0, text="")
    again = Deed(Kind.EDIT, 1, 3, 3.0, 4.0, text="thirty days")
    assert 1 == len(_deeds(gone, again).wrongs([_shown(9.0)]))


def test_access_that_changes_at_the_moment_may_be_either() -> None:
    deeds = _deeds(
        Deed(Kind.RELABEL, 1, 2, 1.0, 2.0, acl=STAFF),
        Deed(Kind.RELABEL, 1, 3, 3.0, 4.0, acl=EVERYBODY),
        Deed(Kind.RELABEL, 1, 4, 5.0, 6.0, acl=frozenset({"group:board"})),
    )
    assert [False, True, False, False, False, True] == [
        bool(deeds.wrongs([_shown(at_s)])) for at_s in (1.5, 2.5, 3.5, 4.5, 5.5, 6.5)
    ]
    assert [False, True] == [bool(deeds.wrongs([_shown(at_s, STAFF)])) for at_s in (2.5, 6.5)]


def test_access_denied_before_and_after_a_change_is_denied_during_it() -> None:
    board = frozenset({"group:board"})
    deeds = _deeds(Deed(Kind.RELABEL, 1, 2, 1.0, 2.0, acl=STAFF), Deed(Kind.RELABEL, 1, 3, 3.0, 4.0, acl=board))
    assert 1 == len(deeds.wrongs([_shown(3.5)]))
