"""Splitting loses nothing; titles are found where readers of Markdown see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragver import splitting
from ragver.splitting import CHUNK_CHARS_MAX, CHUNK_CHARS_MIN, SECTION_CHARS_MAX, UNBROKEN_CHARS_MAX, split, title_of

PIECES = (
    *("# Leave\n", "## ", "---\n", "- item\n", "1. ", "> ", "```\n", "| a | b |\n|---|---|\n", "<div>", "[a](b)"),
    *("\n\n", "\r\n", "\n", " ", "\t", "\u2028", "\u00a0"),
    *("word ", "A sentence. " * 40, "x" * 900, "e\u0301", "👩\u200d👩\u200d👧", "漢字。"),
)
MARKDOWN = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
WELL_FORMED = st.text(st.characters(codec="utf-8"), max_size=3000)


@given(st.one_of(MARKDOWN, WELL_FORMED))
def test_the_chunks_in_order_are_the_text(text: str) -> None:
    """Nothing is lost, nothing is empty, nothing is too long."""
    chunks = split(text)
    assert text == "".join(chunks)
    assert all(0 < len(chunk) <= CHUNK_CHARS_MAX for chunk in chunks)


@given(MARKDOWN.map(lambda text: text * 12), st.integers(50, 400))
def test_a_text_in_many_sections_is_the_text_still(text: str, section: int) -> None:
    """The cut into sections is lossless too, wherever it falls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "SECTION_CHARS_MAX", section)
        patch.setattr(splitting, "UNBROKEN_CHARS_MAX", section // 2)
        assert text == "".join(split(text))


def test_the_empty_text_has_no_chunks() -> None:
    """An empty document exists, and has none."""
    assert [] == split("")


def test_a_short_text_is_one_chunk() -> None:
    """White space around it is part of it."""
    assert ["\n\n  Short.\n"] == split("\n\n  Short.\n")


def test_chunks_begin_at_headings() -> None:
    """A section that fills a chunk is not torn from its heading."""
    sections = [f"# Heading {number}\n\n" + "Some words. " * 45 + "\n\n" for number in range(4)]
    assert sections == split("".join(sections))
    assert all(CHUNK_CHARS_MIN <= len(section) <= CHUNK_CHARS_MAX for section in sections)


def test_an_edit_leaves_the_chunks_of_other_sections_as_they_are() -> None:
    """Chunks survive edits elsewhere in the document; that is what saves embedding them again."""
    sections = [f"## Part {number}\n\n" + f"Rule {number} holds. " * 30 + "\n\n" for number in range(10)]
    before = split("".join(sections))
    sections[4] = "## Part 4\n\nRepealed.\n\n"
    after = split("".join(sections))
    assert len(before) - 3 <= len(set(before) & set(after))


@pytest.mark.parametrize("loss", ["one chunk", "all chunks"])
def test_a_library_that_loses_text_is_not_believed(monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    """Plain windows take the place of chunks that are not the text."""

    class Lossy:
        def chunks(self, text: str) -> list[str]:
            return [text[:10]] if loss == "one chunk" else []

    text = "abc " * 500
    monkeypatch.setattr(splitting, "_splitter", Lossy())
    assert [text[:800], text[800:1600], text[1600:]] == split(text)


@pytest.mark.parametrize("mark", ["\n# Heading", "\n\nparagraph", "\nline"])
def test_a_long_text_is_cut_where_a_reader_would(mark: str) -> None:
    """Sections end at a heading, a blank line or a line, so the chunks there are whole."""
    text = "a" * (SECTION_CHARS_MAX - 100) + mark + "\n" + "b" * 1000
    assert any(chunk.startswith(mark.lstrip("\n")) for chunk in split(text))


def test_the_splitter_never_sees_more_than_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with the square of what it is given, so that is bounded whatever the text."""
    seen: list[int] = []

    class Watching:
        def chunks(self, text: str) -> list[str]:
            seen.append(len(text))
            return [text]

    monkeypatch.setattr(splitting, "_splitter", Watching())
    split("x" * 100_000)
    split("some words\n" * 10_000)
    assert SECTION_CHARS_MAX >= max(seen)
    assert UNBROKEN_CHARS_MAX in seen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Leave\n\nText", "Leave"),
        ("\ufeff# Leave", "Leave"),
        ("Intro.\n\n   ### Sick leave ###  \n", "Sick leave"),
        ("# C#\n", "C#"),
        ("Leave\n=====\n", "Leave"),
        ("Leave\r\n-----\r\n", "Leave"),
        ("A long\nheading\n---\n", "A long heading"),
        ("# \n## Second", "Second"),
        ("```sh\n# a comment\n```\n# Real", "Real"),
        ("~~~\n```\n# a comment\n~~~\n# Real", "Real"),
        ("````\n```\n# a comment\n````\n# Real", "Real"),
        ("```\n# never closed", None),
        ("- item\n---\n# After", "After"),
        ("text\n\n---\n\n# After a rule", "After a rule"),
        ("---\ntitle: Leave\ntags: [a]\n---\n# Other", "Leave"),
        ("---\r\ntitle: 'Leave: all'\r\n---\r\nText", "Leave: all"),
        ('---\ntitle: "Leave"\n...\n', "Leave"),
        ("---\ntitle: ''\n---\n# Heading", "Heading"),
        ("---\ntags: [a]\n---\n# Heading", "Heading"),
        ("# With\tsome \x07 control\u2028characters", "With some control characters"),
        ("# " + "x" * 300, "x" * 200),
        ("#hashtag\n\nplain text", None),
        ("", None),
    ],
)
def test_the_title_is_what_the_text_calls_itself(text: str, expected: str | None) -> None:
    """Front matter first, then the first heading that is one."""
    assert expected == title_of(text)


@given(st.one_of(MARKDOWN, WELL_FORMED))
def test_a_title_is_one_printable_line(text: str) -> None:
    """It fits the title field of a document whatever the text."""
    title = title_of(text)
    assert title is None or (title.isprintable() and title.strip() == title != "")
