"""Whether a text says what a quote claims."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ragver.citations.quotes import contains, normalise

TEXT = "Everyone has 30 days of leave. “It’s yours” – 3.5 weeks, 1,000 hours… in Köln."


@pytest.mark.parametrize(
    "quote",
    [
        "30 days of leave",
        "  30\u00a0days\n of\u2028leave ",
        '"It\'s yours" - 3.5 weeks',
        "“It’s yours” — 3.5 weeks",
        "«It's yours»",
        "1,000 hours... in",
        "30 da\u00adys of le\u200bave",
        "in Ko\u0308ln",
        "30 days",
        "leave.",
        "１,０００ hours",
        TEXT,
    ],
)
def test_typography_does_not_matter(quote: str) -> None:
    """Spaces, quotation marks, dashes, dots, invisible characters and ways to compose letters may differ."""
    assert contains(TEXT, quote)


@pytest.mark.parametrize(
    "quote",
    [
        *("31 days of leave", "everyone has", "30 days leave", "30 days of leaves", "30 days of holiday"),
        *("0 days of leave", "30 day", "veryone has", "3.5 week", "5 weeks", "“It’s yours” – 3", "1 000 hours"),
        *("000 hours", "Koln", "30 days of leave!"),
    ],
)
def test_words_and_digits_do(quote: str) -> None:
    """A word or number that is changed, left out or cut short makes it another quote."""
    assert not contains(TEXT, quote)


@pytest.mark.parametrize(
    ("text", "quote"),
    [("it´s 5″ wide", "it's 5\" wide"), ("now\ufe58or never", "now-or never"), ("Cafe\u200b\u0301 now", "Café now")],
)
def test_marks_that_unicode_itself_takes_apart_or_makes(text: str, quote: str) -> None:
    """NFKC turns an acute accent into a space with an accent, and a small dash into a dash that is typographic."""
    assert contains(text, quote)


@pytest.mark.parametrize("quote", ["", " \n\u00a0", "\u200b\u00ad", "\ufeff"])
def test_a_quote_of_nothing_is_in_no_text(quote: str) -> None:
    """Otherwise it would be found everywhere."""
    assert not contains(TEXT, quote)
    assert not contains(quote, quote)


def test_scripts_without_spaces_may_be_quoted_from_any_character() -> None:
    """Where words are not set apart, their ends are not asked for."""
    assert contains("休暇は三十日です。", "三十日")
    assert not contains("休暇は三十日です。", "二十日")


def test_a_quote_of_repetitions_in_a_text_of_repetitions() -> None:
    """Half-matches everywhere do not make the search quadratic."""
    assert not contains("xa " * 200_000, "xa " * 100_000 + "x")


@given(st.text(max_size=50))
def test_normalising_twice_changes_nothing(text: str) -> None:
    """The normal form is its own."""
    assert normalise(text) == normalise(normalise(text))


@given(st.lists(st.text("ab1 “’…-\u00a0é漢", min_size=1, max_size=8), min_size=1, max_size=8), st.data())
def test_a_run_of_whole_words_is_contained(words: list[str], data: st.DataObject) -> None:
    """Whatever words the text has, some of them in a row are a quote of it."""
    text = " ".join(words)
    split = text.split()
    assume(split)
    start = data.draw(st.integers(0, len(split) - 1))
    end = data.draw(st.integers(start + 1, len(split)))
    assert contains(text, " ".join(split[start:end]))
