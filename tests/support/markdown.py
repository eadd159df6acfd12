"""Texts that a model might write, and worse."""

from __future__ import annotations

from hypothesis import strategies as st

_MARKERS = ["[1]", "[2, 3]", "[4-6]", "[^1]", "【2】", "[1](u.v/w)", "[1042]", "[0]"]
_MARKUP = ["[^1]: ", "`", "``", "```", "~~~", "[", "]", "(", ")", "!", "\\", "- ", "2. ", "> ", "# ", "|", "|-|", "---"]
_PROSE = [
    "Leave. ",
    "e.g. ",
    "3.5 ",
    "You get it. ",
    "so",
    "Is it? ",
    "As said: ",
    "**",
    "“",
    '"',
    "é",
    "休暇。",
    "Source: ",
]
_SPACE = ["\n", "\n\n", "\r\n", "    ", "\t", " ", "\u2028"]

FRAGMENTS = st.sampled_from(_MARKERS + _MARKUP + _PROSE + _SPACE)

MARKDOWN = st.lists(FRAGMENTS, max_size=40).map("".join)
"""Fragments of Markdown in any order: most of it well-formed nowhere."""

_sentence = st.builds(
    "{} {}{}".format,
    st.sampled_from(
        ["You get 30 days", "Sick pay, e.g. for a week, is 3.5 %", "“Ask HR.” Then wait", "It carries over"]
    ),
    st.lists(st.sampled_from(_MARKERS[:5]), max_size=2).map("".join),
    st.sampled_from([".", "!", "?"]),
)
_paragraph = st.lists(_sentence, min_size=1, max_size=4).map(" ".join)
_bullets = st.lists(_sentence.map("- {}".format), min_size=1, max_size=3).map("\n".join)
_table = st.lists(_sentence.map("| a | {} |".format), min_size=1, max_size=3).map(
    lambda rows: "\n".join(["| what | how |", "|---|---|", *rows])
)
_other = st.sampled_from(
    ["## Leave", "```\na[1]\n```", "> Quoted [1].", "The list:", "[^1]: leave.md", "Source: [2]", "---"]
)

ANSWERS = st.lists(_paragraph | _bullets | _table | _other, min_size=1, max_size=5).map("\n\n".join)
"""Well-formed answers with citations."""
