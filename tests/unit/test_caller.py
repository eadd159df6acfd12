"""What is left to a request of who its caller is: the key's principals and actor come before what it claims."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver.caller import OPERATOR, Caller
from ragver.errors import InvalidRequest, NotAllowed
from ragver.types import Role

LABELS = st.lists(st.sampled_from(["*", "user:ada", "user:bob", "group:hr"]), max_size=4)


def reader(principals: list[str] | None) -> Caller:
    return Caller(Role.READER, "0" * 12, "chat", principals=None if principals is None else tuple(principals))


@given(LABELS, LABELS)
def test_nobody_reads_with_a_label_that_the_key_does_not_have(fixed: list[str], named: list[str]) -> None:
    if set(named) <= {*fixed, "*"}:
        read = reader(fixed).reads_as(named)
        assert set(read) <= {*fixed, "*"}
        assert set(read) == (set(named) or set(fixed))
    else:
        with pytest.raises(NotAllowed, match="principals of the key 'chat' are fixed"):
            reader(fixed).reads_as(named)


@given(LABELS)
def test_without_fixed_ones_the_request_says(named: list[str]) -> None:
    assert named == reader(None).reads_as(named) == OPERATOR.reads_as(named)


@pytest.mark.parametrize(
    ("claimed", "kept"), [(None, "key:chat"), ("ada", "key:chat:ada"), ("key:other", "key:chat:key:other")]
)
def test_the_log_names_the_key_first(claimed: str | None, kept: str) -> None:
    assert kept == reader(None).acts_as(claimed)


def test_without_a_key_nobody_can_pass_for_one() -> None:
    assert [None, "ada"] == [OPERATOR.acts_as(None), OPERATOR.acts_as("ada")]
    with pytest.raises(InvalidRequest, match="stands for an API key"):
        OPERATOR.acts_as("key:chat")


@pytest.mark.parametrize("role", list(Role))
def test_a_role_covers_itself_and_the_ones_before_it(role: Role) -> None:
    assert list(Role)[: list(Role).index(role) + 1] == [needed for needed in Role if role.covers(needed)]
