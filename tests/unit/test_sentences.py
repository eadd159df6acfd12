"""How an answer falls into units, and what is left when some are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver.citations import markers, sentences
from ragver.citations.cutting import cut
from tests.support.markdown import ANSWERS, MARKDOWN


def units(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in sentences.split(text)]


def spans(text: str, *bad: int) -> list[tuple[int, int]]:
    return [(marker.start, marker.end) for marker in markers.parse(text) if not set(bad).isdisjoint(marker.targets)]


@pytest.mark.parametrize(
    "expected",
    [
        [],
        ["  \n"],
        ["You get 30 days. ", "Ask HR! ", "Really? ", "Yes."],
        ["You get 30 days. [1] ", "Next."],
        ["You get 30 days.[1][2] [3], [4]. ", "Next."],
        ["You get 30 days [1]. ", "Next."],
        ["You get 30 days. (See [1].) ", "Next."],
        ["You get 30 days. ", "(It was less.) ", "Next."],
        ["You get 30 days.\n[1] Next."],
        ["You get 30 days. [1] says so."],
        ["It is 3.5 days, e.g. Monday, i.e. now. ", "Next."],
        ["Dr. Who vs. J. Doe of the U.S. Army. ", "Next."],
        ["See no. 5 of it. ", "The answer is no. ", "Next."],
        ["Well... perhaps. ", "Next… ", "And next."],
        ["He said “Stop. Now.” ", "Next."],
        ["**All of it. And this.** ", "Next."],
        ["Use `a. B` here. ", "Read [1](http://x.y/z. Z) there. ", "Next."],
        ["休暇は30日です。[1]", "次の文。", "終わり"],
        ["Wrapped\nlines go on.\n", "Next."],
        ["# Heading. One\n", "Text. ", "More.\n\n", "- An item. All of it.\n  ", "- A child\n\n", "After."],
        ["> A quote. All of it.\n> — [1]\n\n", "After."],
        ["| a. B | c |\n|---|---|\n", "| d. E | f |\n", "| g | h |\n\n", "After."],
        ["```\nA. B. C.\n\nD. E.\n```\n", "After."],
        ["\n\nFirst. ", "Second.\n\n"],
        ["Sources:\n", "[1] a.md\n", "[2] b.md, c.\n"],
        ["[1]\n[2]"],
    ],
)
def test_units(expected: list[str]) -> None:
    """Sentences, items, rows, headings and code blocks are told apart, and a marker stays with its sentence."""
    assert expected == units("".join(expected))


@given(MARKDOWN | ANSWERS | st.text())
def test_units_lose_nothing(text: str) -> None:
    """Joined, the units are the text, and none is empty."""
    assert text == "".join(units(text))
    assert all(units(text))


@given(MARKDOWN)
def test_no_unit_cuts_a_marker_in_two(text: str) -> None:
    """Each marker lies within one unit."""
    found = sentences.split(text)
    for marker in markers.parse(text):
        assert any(unit.start <= marker.start and marker.end <= unit.end and unit.cites for unit in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bad [1]. Good [2].", "Good [2]."),
        ("Good [2]. Bad [1].", "Good [2]."),
        ("Good [2]. Bad. [1] Good again.\n", "Good [2]. Good again.\n"),
        ("Good [2].\nBad [1]. Good.", "Good [2].\nGood."),
        ("Good [2]. Bad [1].\n\nGood.", "Good [2].\n\nGood."),
        ("Good.\n\nBad [1].\n\nGood.", "Good.\n\nGood."),
        ("\n\n  Bad [1]. Good.", "  Good."),
        ("Good.\r\n\r\nBad [1].\r\n\r\nGood.\r\n", "Good.\r\n\r\nGood.\r\n"),
        ("Both [1, 2]. Good.", "Good."),
        ("休暇[1]。終わり。", "終わり。"),
        ("# A\n\nBad [1].\n\n# B\n\nGood.", "# A\n\n# B\n\nGood."),
        ("# Bad [1]\n\nGood.", "Good."),
        ("- good\n- bad [1]\n- good\n", "- good\n- good\n"),
        ("- good\n  - bad [1]\n- good", "- good\n- good"),
        ("- good\n- bad [1]\n\nGood.", "- good\n\nGood."),
        ("- bad [1]\n  more of it\n- good", "- good"),
        ("| a | b |\n|--|--|\n| bad | [1] |\n| good | |\n\nGood.", "| a | b |\n|--|--|\n| good | |\n\nGood."),
        ("Use:\n```\nx\n```\n\nBad [1].", "Use:\n```\nx\n```"),
    ],
)
def test_cutting_tidies_up(text: str, expected: str) -> None:
    """The unit goes with its bullet or row and its share of the white space; the rest keeps its bytes."""
    assert expected == cut(text, spans(text, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("By [1]:\n- so\n- and [2]\n- so\n\nGood.", "- and [2]\n\nGood."),
        ("It says: [1]\n\n```\nx\n```\n\nGood.", "Good."),
        (
            "By [2]:\n- bad [1]\n  - child\n    - of it\n  - but [2]\n    - its own\n- good",
            "By [2]:\n  - but [2]\n    - its own\n- good",
        ),
        ("- bad [1]\n\n  More of the item.\n\nGood.", "Good."),
        ("It is so.\nSource: [1]\n\nGood.", "Good."),
        ("It is so.\n\n[1]\n\nGood.", "Good."),
        ("It is so [2].\n\nSource: [1]\n\nGood.", "It is so [2].\n\nGood."),
        ("- so\n- and so\n\nSource: [1]\n\nGood.", "Good."),
        ("# Leave\n\n[1]\n\nGood.", "# Leave\n\nGood."),
        ("Good.\n\n| a [1] | b |\n|--|--|\n| c | d [2] |", "Good."),
        ("Good.\n\n| a | b |\n|--|--|\n| c | d [1] |", "Good."),
        ("Good [2].\n\nSources:\n[1] a.md\n[2] b.md", "Good [2].\n\nSources:\n[2] b.md"),
    ],
)
def test_what_stands_or_falls_with_a_cut_unit(text: str, expected: str) -> None:
    """What a cut unit introduced or spoke for goes with it, unless it cites something of its own."""
    assert expected == cut(text, spans(text, 1))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Bad [1].",
            " Bad [1]\n",
            "# Leave\n\nBad [1].\n\n## More\n",
            "- bad [1]\n",
            "Bad [1]. 👍",
            "**Bad [1]. Good.**",
        ),
        *("| a | b |\n|--|--|\n| c | [1] |", "Bad [^1].\n\n[^2]: b.md", "Bad [1].\n\n---\n"),
    ],
)
def test_nothing_left(text: str) -> None:
    """Headings, heads of tables, rules and footnotes alone say nothing."""
    assert cut(text, spans(text, 1)) == ""


@given(MARKDOWN | ANSWERS)
def test_cutting_nothing_changes_nothing(text: str) -> None:
    """Not even white space."""
    assert text == cut(text, [])


@given(ANSWERS)
def test_cutting_takes_all_that_is_bad_and_keeps_all_that_cites_well(text: str) -> None:
    """Every unit with a bad marker goes; every unit that cites, and only well, stays as it was, and in order.

    Tables are left out: a bad head takes its rows along.
    """
    bad = spans(text, 1)
    left = cut(text, bad)
    assert [] == spans(left, 1)
    at = 0
    for unit in sentences.split(text):
        touched = any(unit.start <= start < unit.end for start, _ in bad)
        if unit.cites and not touched and unit.kind.name not in ("FOOTNOTE", "HEADING"):
            at = left.index(text[unit.start : unit.end].strip(), at)


@given(ANSWERS)
def test_cutting_leaves_no_double_gaps(text: str) -> None:
    """Blank lines do not pile up where something was."""
    assert "\n\n\n" not in cut(text, spans(text, 1))


@pytest.mark.parametrize(
    "unit", ["A. ", "( A. ", "A. (", ". [1]", "- a\n", "* [1]\n", "[1]\n", "|a|\n", "“A. ", "A [1].\n\n", "[1]\n\n"]
)
def test_malice_takes_linear_time(unit: str) -> None:
    """Whatever is repeated: quadratic time would not end here within anybody's patience."""
    text = unit * (100_000 // len(unit))
    assert len(cut(text, spans(text, 1))) <= len(text)
