"""Feature hashing: the same everywhere, near where words are shared, zero where there are none."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ragver.embedding import hashing
from ragver.embedding.hashing import CHARACTERS_INLINE_MAX, DIMENSIONS_DEFAULT, WORD_CHARS_MAX, HashingEmbedder
from ragver.embedding.port import Matrix

EMBEDDER = HashingEmbedder()
GOLDEN_LEAVE = [
    -0.6074869632720947,
    0.4786950349807739,
    -0.6699684262275696,
    -0.7623870968818665,
    -0.23447656631469727,
    -0.31894031167030334,
    -0.3180094063282013,
    0.4537866711616516,
]
GOLDEN_MIXED = [
    0.6439505219459534,
    -1.6605340242385864,
    -1.2963624000549316,
    -0.14139620959758759,
    0.7177249789237976,
    0.19754324853420258,
    0.4369257688522339,
    0.07009416073560715,
]


async def cosine(one: str, other: str) -> float:
    a, b = (await EMBEDDER.embed_documents([one, other])).astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


async def test_vectors_are_what_they_were_in_every_version() -> None:
    """Stored vectors must fit new questions: if this fails, the change breaks every corpus there is."""
    leave = await HashingEmbedder(8).embed_query("Parental leave: 16 weeks, paid. Leave!")
    mixed = await HashingEmbedder(8).embed_query("Ｕrlaub für Größe, 育児休業 2024")
    assert GOLDEN_LEAVE == leave.tolist()
    assert GOLDEN_MIXED == mixed.tolist()


async def test_vectors_are_the_same_in_another_process() -> None:
    """Nothing depends on Python's own, randomised, hashes."""
    text = "Everyone has 30 days of leave. Größe, 休暇."
    program = (
        "import asyncio, sys; from ragver.embedding.hashing import HashingEmbedder;"
        f"print(asyncio.run(HashingEmbedder().embed_query({text!r})).tobytes().hex())"
    )
    found = subprocess.run(  # noqa: ASYNC221  nothing else runs meanwhile
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "42"}, capture_output=True, check=True, text=True
    )
    assert (await EMBEDDER.embed_query(text)).tobytes().hex() == found.stdout.strip()


@given(st.lists(st.text(max_size=200), max_size=5))
async def test_any_text_gives_a_finite_row(texts: list[str]) -> None:
    """One row a text, float32, the same alone and among others."""
    matrix = await EMBEDDER.embed_documents(texts)
    assert (len(texts), DIMENSIONS_DEFAULT) == matrix.shape
    assert np.float32 == matrix.dtype
    assert np.isfinite(matrix).all()
    for text, row in zip(texts, matrix, strict=True):
        assert row.tobytes() == (await EMBEDDER.embed_query(text)).tobytes()


@pytest.mark.parametrize("text", ["", " \n\t", "— … !?", "___", "\u200b", "👍"])
async def test_a_text_without_words_gives_the_zero_vector(text: str) -> None:
    """It is near nothing."""
    assert not (await EMBEDDER.embed_query(text)).any()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Parental LEAVE", "parental leave"),
        ("GRÖSSE", "größe"),
        ("ﬁle", "file"),
        ("cafe\u0301", "café"),
        ("１６ weeks", "16 weeks"),
        ("_leave_ **policy**", "leave policy"),
        ("\u0345\u0399", "\u03b9\u03b9"),
    ],
)
async def test_forms_of_the_same_characters_are_the_same(one: str, other: str) -> None:
    """Case, compatibility forms, composition and mark-up make no difference."""
    first, second = await EMBEDDER.embed_documents([one, other])
    assert first.tobytes() == second.tobytes()


async def test_texts_that_share_words_are_nearer() -> None:
    """The rare words decide, not the frequent ones."""
    question = "How many weeks of parental leave do I get?"
    right = await cosine(question, "Parental leave is sixteen weeks, fully paid.")
    wrong = await cosine(question, "How do I get to know many of the people I work with? Do I have to?")
    assert right > 2 * max(wrong, 0.0)


async def test_other_forms_of_a_word_are_near() -> None:
    """By the runs of characters that they share."""
    assert await cosine("reimbursement", "reimbursed") > 0.3
    assert abs(await cosine("reimbursement", "parental")) < 0.15


async def test_it_knows_no_meaning() -> None:
    """As promised: two words for one thing are strangers."""
    assert abs(await cosine("refund", "reimbursement")) < 0.2


async def test_scripts_without_spaces_are_searchable() -> None:
    """A question finds the sentence that shares its words, though neither marks where they end."""
    question = "育児休業は何日ですか"
    assert await cosine(question, "社員は育児休業を取得できます。") > 2 * await cosine(
        question, "出張の費用は会社が払います。"
    )


async def test_repeating_a_text_changes_its_length_and_not_its_direction() -> None:
    """Weights grow with the count, the same for every word."""
    assert await cosine("leave policy of the company", "leave policy of the company " * 9) == pytest.approx(1.0)


async def test_runs_without_end_cost_no_more_than_words() -> None:
    """No word is longer than its bound, so none has features without number."""
    blob = "a1b2" * 50_000
    assert all(len(word) <= WORD_CHARS_MAX for word in hashing._words(blob))
    assert (await EMBEDDER.embed_query(blob)).any()


async def test_many_texts_leave_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much text is embedded in a thread, little is not worth one."""
    threads: list[int] = []

    class Watched(HashingEmbedder):
        def _add(self, text: str, row: NDArray[np.float32]) -> None:
            threads.append(threading.get_ident())

    async def embed(texts: list[str]) -> Matrix:
        return await Watched().embed_documents(texts)

    await embed(["a" * CHARACTERS_INLINE_MAX])
    await embed(["a" * CHARACTERS_INLINE_MAX, "b"])
    assert threading.get_ident() == threads[0]
    assert threading.get_ident() not in threads[1:]
    assert 3 == len(threads)


async def test_the_cache_of_words_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that was pushed out is computed again, alike."""
    monkeypatch.setattr(hashing, "WORDS_CACHED_MAX", 2)
    text = "one two three four one five two " * 3
    assert (await EMBEDDER.embed_query(text)).tobytes() == (await HashingEmbedder().embed_query(text)).tobytes()
