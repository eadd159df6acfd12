"""Which brackets in generated text are citations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver.citations import blocks, markers
from ragver.citations.blocks import Block, Kind
from ragver.citations.markers import RANGE_MAX, UNREADABLE, Marker
from ragver.types import REF_MAX
from tests.support.markdown import MARKDOWN


def targets(text: str) -> list[tuple[int, ...]]:
    return [marker.targets for marker in markers.parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("leave [1].", [(1,)]),
        ("leave[1].", [(1,)]),
        ("[1, 2]", [(1, 2)]),
        ("[1,2 ;3]", [(1, 2, 3)]),
        ("[2, 1, 2]", [(2, 1, 2)]),
        ("[ 1 ]", [(1,)]),
        ("[1,\n2]", [(1, 2)]),
        ("[1][2]", [(1,), (2,)]),
        ("[[1]]", [(1,)]),
        ("[1-3]", [(1, 2, 3)]),
        ("[1–3, 7]", [(1, 2, 3, 7)]),
        ("[3-1]", [(1, 2, 3)]),
        ("[^1]", [(1,)]),
        ("[^1, ^2]", [(1, 2)]),
        ("【1】", [(1,)]),
        ("【1、2】", [(1, 2)]),
        ("［1］", [(1,)]),
        ("[100042]", [(100042,)]),
        ("[chunk:100042]", [(100042,)]),
        ("[Chunk 100042]", [(100042,)]),
        ("[1, chunk:100042, 100043]", [(1, 100042, 100043)]),
        ("[0]", [(0,)]),
        ("[007]", [(7,)]),
        (f"[{REF_MAX}] [{REF_MAX + 1}]", [(REF_MAX,), (REF_MAX + 1,)]),
        (r"\[1\]", [(1,)]),
        ("see [the plan][1]", [(1,)]),
        ("Great![1]", [(1,)]),
    ],
)
def test_forms_of_markers(text: str, expected: list[tuple[int, ...]]) -> None:
    """Every form in which a model cites is read, its numbers in the order written."""
    assert expected == targets(text)


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "[ ]", "[x]", "- [ ] to do", "- [x] done", "[1.5]", "[-1]", "[1a]", "[a1]", "[1", "1]", "[1】", "[,1]"),
        *("[2024-01-31]", "[2024-01]", "[note]", "[^note]", "[1 2]"),
        *("`a[1]`", "``a`[1]``", "`a\n[1]`", "```\na[1]\n```", "~~~\na[1]\n~~~", "```python\na[1]"),
        *("- step\n  ```\n  a[1]\n  ```", "- ```\n  a[1]\n  ```", "> ```\n> a[1]\n> ```", "```\n~~~\n[1]\n```"),
        *("![1](plot.png)", "![plot 1](plot.png)", "[^1]: policies/leave.md", "   [^1]: policies/leave.md"),
    ],
)
def test_what_is_no_marker(text: str) -> None:
    """Dates, decimals, task boxes, code, images and the definitions of footnotes are not citations."""
    assert [] == targets(text)


@pytest.mark.parametrize(
    "text",
    [
        "`open [1]",
        "`a\n\n[1] `",
        "- `a\n- [1] `",
        r"\`a[1]`",
        "```\ncode\n```\n[1]",
        "````\n```\n````\n[1]",
        "> ```\n> code\n\n[1]",
        "- step\n  ```\n  code\n\nNever closed [1]",
        "```a`` `b [1]",
        "    indented [1]",
        "[^1]: see [1]",
        "text\n[^2]: also [1]",
    ],
)
def test_what_only_looks_like_code_is_text(text: str) -> None:
    """In doubt a marker counts: a citation that is missed is one that nobody checks."""
    assert [(1,)] == targets(text)


def test_code_in_a_list_does_not_hide_the_item_after_it() -> None:
    """A fence inside a list ends at its closing line, however that is indented."""
    text = "1. Do:\n   ```bash\npip install x[2]\n   ```\n2. Then [1]."
    assert [(1,)] == targets(text)


def test_spans_count_code_points_and_include_the_link() -> None:
    """A span is where the marker stands in the text, with the target of its link and escaping backslashes."""
    text = r"Ä😀 [1](https://x.y/a_(b)) and \[2\]"
    spans = [text[marker.start : marker.end] for marker in markers.parse(text)]
    assert ["[1](https://x.y/a_(b))", r"\[2\]"] == spans


def test_an_overlong_range_is_not_expanded() -> None:
    """A range past its bound stands for its ends and for what cannot exist, so that it can never pass."""
    longest, too_long = targets(f"[1-{RANGE_MAX}] [1-{RANGE_MAX + 1}]")
    assert tuple(range(1, RANGE_MAX + 1)) == longest
    assert (1, RANGE_MAX + 1, UNREADABLE) == too_long


def test_a_range_from_ref_to_chunk_stands_for_its_ends() -> None:
    """Nothing lies between a ref and a chunk id."""
    assert [(12, 2024)] == targets("[12-2024]")


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5_000, "9" * 200_000])
def test_an_overlong_number_is_a_marker_that_points_nowhere(digits: str) -> None:
    """It is made up, and that has to come to light."""
    assert [(UNREADABLE,)] == targets(f"[{digits}]")


def test_leading_zeros_do_not_count() -> None:
    """However many there are."""
    assert [(1,)] == targets(f"[{'0' * 5_000}1]")


def test_footnote_definitions_are_found_by_their_label() -> None:
    """Only at the start of a line, and only where the label is a number."""
    text = "Leave[^1].\n\n[^1]: leave.md\n[^n]: other\n[^22]: b [^1]: c"
    assert [(1,), (22,)] == [label.targets for label in markers.footnotes(text)]
    assert ["[^1]:", "[^22]:"] == [text[label.start : label.end] for label in markers.footnotes(text)]


@pytest.mark.parametrize(
    "unit",
    [
        *("[", "[1", "[1,", "[1-", "[1](", "[1](\\", "![", "![1](", "[chunk ", "[ ", "[^", "【1"),
        *("`", "` ``", "\\", "(", "\n", "> ```x\n\n", "  ```x\n", "```\n", "|-\n", "- - ", "[^1]:\n"),
    ],
)
def test_malice_takes_linear_time(unit: str) -> None:
    """Whatever is repeated: a scan that takes quadratic time would not end here within anybody's patience."""
    times = 300_000 // len(unit)
    assert (times if "[1](" in unit else 0) == len(markers.parse(unit * times))


def test_runs_of_backticks_of_all_lengths() -> None:
    """None of them closes another, and none is looked for twice."""
    assert [(1,)] == targets(" ".join("`" * length for length in range(1, 1_400)) + " [1]")


@given(MARKDOWN)
def test_markers_lie_in_order_and_apart(text: str) -> None:
    """Spans ascend, do not overlap and hold the brackets; every marker names something."""
    end = 0
    for marker in markers.parse(text):
        assert end <= marker.start < marker.end <= len(text)
        assert marker.targets
        assert text[marker.start] in "[【［\\"
        end = marker.end


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=5))
def test_a_list_is_read_back(numbers: list[int]) -> None:
    """Refs and chunk ids come out as they were written."""
    text = f"So it is [{', '.join(map(str, numbers))}]."
    assert [Marker(9, len(text) - 1, tuple(numbers))] == markers.parse(text)


@given(MARKDOWN)
def test_blocks_lose_nothing(text: str) -> None:
    """Joined, the blocks are the text, and each starts a line."""
    split = blocks.split(text)
    assert text == "".join(text[block.start : block.end] for block in split)
    assert all(block.start == 0 or text[block.start - 1] == "\n" for block in split)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\n", [Kind.PARAGRAPH]),
        ("\n\na\nb\n\nc", [Kind.PARAGRAPH, Kind.PARAGRAPH]),
        ("# A\nb", [Kind.HEADING, Kind.PARAGRAPH]),
        ("#1 is text", [Kind.PARAGRAPH]),
        ("- a\n  b\n- c\n* * *", [Kind.ITEM, Kind.ITEM, Kind.RULE]),
        ("in\n2024. Then", [Kind.PARAGRAPH]),
        ("Do:\n1. a\n2. b", [Kind.PARAGRAPH, Kind.ITEM, Kind.ITEM]),
        ("> a\n> b\nc\n\n> d", [Kind.QUOTE, Kind.QUOTE]),
        ("a | b\n--|--\nc | d\nplain", [Kind.TABLE_HEAD, Kind.TABLE_ROW, Kind.PARAGRAPH]),
        ("|a|\n|b|", [Kind.TABLE_ROW, Kind.TABLE_ROW]),
        ("a\n```\nx\n\ny\n```\nb", [Kind.PARAGRAPH, Kind.CODE, Kind.PARAGRAPH]),
    ],
)
def test_kinds_of_blocks(text: str, expected: list[Kind]) -> None:
    """The shapes of Markdown that models write are told apart."""
    assert expected == [block.kind for block in blocks.split(text)]


def test_indent_is_counted_in_columns() -> None:
    """A tab goes to the next multiple of four."""
    assert [Block(Kind.ITEM, 0, 4, 0), Block(Kind.ITEM, 4, 8, 4)] == blocks.split("- a\n\t- b")
