"""Tables give way where they can, and without a terminal a row is a line whatever its values hold."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ragver.cli.output import PADDING, Column, _widths, excerpt, explained, show_json, show_rows
from ragver.errors import IndexLagging

COLUMN = st.builds(
    Column,
    title=st.text("abc", min_size=1, max_size=8),
    narrow=st.sampled_from(["keep", "wrap", "cut"]),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[list[str]]]:
    columns = draw(st.lists(COLUMN, min_size=1, max_size=6))
    row = st.lists(st.text("ab漢", max_size=60), min_size=len(columns), max_size=len(columns))
    return columns, draw(st.lists(row, max_size=4))


def column(title: str, narrow: Literal["keep", "wrap", "cut"]) -> Column:
    return Column(title, narrow=narrow)


@given(tables(), st.integers(1, 200))
def test_only_columns_that_may_give_way_do_and_only_as_far_as_needed(
    table: tuple[list[Column], list[list[str]]], available: int
) -> None:
    columns, rows = table
    needed, given_ = _widths(columns, rows, 10_000), _widths(columns, rows, available)
    yielding = [place for place, one in enumerate(columns) if one.narrow != "keep"]
    whole = PADDING * (len(columns) - 1)
    least = whole + sum(needed) - sum(needed[place] - 1 for place in yielding)

    assert all(given_[place] == needed[place] for place in range(len(columns)) if place not in yielding)
    assert all(1 <= narrow <= wide for narrow, wide in zip(given_, needed, strict=True))
    if available >= least:
        assert min(available, whole + sum(needed)) == whole + sum(given_)


def test_a_short_column_leaves_its_share_to_a_long_one() -> None:
    columns = [column("key", "wrap"), column("text", "cut")]

    assert [5, 73] == _widths(columns, [["short", "x" * 200]], 80)


def test_without_a_terminal_a_row_is_a_line_of_tabbed_values(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([column("a", "keep")] * 3, [["tab\there", None, "two\nlines"], [1, 2.5, ""]])

    assert "tab here\t\ttwo lines\n1\t2.5\t\n" == capsys.readouterr().out


def test_json_keeps_what_is_not_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    class Answer(BaseModel):
        name: str

    show_json({"answers": [Answer(name="Müsli")], "none": None})

    assert '{"answers": [{"name": "Müsli"}], "none": null}\n' == capsys.readouterr().out


def test_an_excerpt_is_one_line_and_says_when_it_is_cut() -> None:
    assert "one two" == excerpt("one\n\n  two")
    assert "…" == excerpt("x" * 1000)[-1]


def test_only_failures_that_were_foreseen_are_explained() -> None:
    assert "try again (index_lagging)" == explained(IndexLagging("try again"))
    assert explained(KeyError("a defect")) is None
    assert explained(OSError("without a file")) is None
    assert explained(ModuleNotFoundError("no", name="ragver.nonsense")) is None
    assert "this command needs fastapi: install ragver[embedded] (not_installed)" == explained(
        ModuleNotFoundError("no", name="fastapi")
    )
