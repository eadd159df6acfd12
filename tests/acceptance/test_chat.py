"""The chat example, as its users run it and while somebody deletes what the model is writing from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import ragver
from ragver.demo import chat
from ragver.demo.model import Message, stand_in
from tests.support.server import Server, environment

QUESTION = "How many days of leave does everyone have?"
OLD = "Everyone has 30 days of leave, says the old page"
NEW = "Everyone has 28 days of leave, says the new page"


@pytest.fixture
def corpus(shared_server: Server) -> Iterator[ragver.Corpus]:
    with ragver.Client(shared_server.url) as client:
        client.create_corpus("leave", verdict_ttl_ms=200)
        client["leave"].put("old.md", f"{OLD}.")
        client["leave"].put("new.md", f"{NEW}.")
        yield client["leave"]
        client.delete_corpus("leave")


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ragver.demo.chat", *arguments]
    kept = {name: value for name, value in environment().items() if not name.startswith("OPENAI_")}
    return subprocess.run(command, env=kept, input=stdin, capture_output=True, text=True, check=False)


def test_it_answers_with_its_sources(shared_server: Server, corpus: ragver.Corpus) -> None:
    done = run("--url", shared_server.url, "--corpus", "leave", QUESTION)

    assert 0 == done.returncode, done.stderr
    assert OLD in done.stdout
    assert NEW in done.stdout
    assert "old.md, version 1" in done.stdout
    assert "stand-in" in done.stderr


def test_without_a_corpus_it_brings_a_sample() -> None:
    done = run(stdin="\nHow many days of leave do I have?\n")

    assert 0 == done.returncode, done.stderr
    assert "people/annual-leave.md, version" in done.stdout


def test_a_service_that_is_none_is_an_error_and_no_answer(shared_server: Server, corpus: ragver.Corpus) -> None:
    done = run("--url", shared_server.url, "--corpus", "leave", "--model-url", f"{shared_server.url}/v1", QUESTION)

    assert (2, "error") == (done.returncode, done.stderr.partition(":")[0])
    assert "404" in done.stderr


class Deleting:
    """Deletes the old page, fenced, before the model writes a certain word, and keeps what was shown by then."""

    def __init__(self, corpus: ragver.Corpus, word: int) -> None:
        self.shown: list[str] = []
        self.before: str | None = None
        self._corpus = corpus
        self._word = word

    def __call__(self, word: int) -> None:
        if word == self._word and self.before is None:
            assert self._corpus.delete("old.md", fence=True).fenced
            self.before = "".join(self.shown)

    @property
    def after(self) -> str:
        assert self.before is not None
        return "".join(self.shown).removeprefix(self.before)


@pytest.mark.guarantee(7)
@pytest.mark.parametrize("word", [0, 2, 9, 12, 21])
def test_nothing_of_a_deleted_page_is_shown_once_the_delete_has_returned(corpus: ragver.Corpus, word: int) -> None:
    """Wherever in the answer it falls; the answer is begun again, and then stands."""
    deleting = Deleting(corpus, word)
    with stand_in(deleting, word_s=0.0) as model:
        end = chat.answer(corpus, QUESTION, model, [], deleting.shown.append)

    assert "old page" not in deleting.after
    assert end is not None
    assert f"{NEW} [1]." == end.released


@pytest.mark.guarantee(7)
def test_anomaly_without_the_gate_the_deleted_page_is_shown(corpus: ragver.Corpus) -> None:
    deleting = Deleting(corpus, 2)
    with stand_in(deleting, word_s=0.0) as model:
        for text in model.stream(prompt(corpus)):
            deleting.shown.append(text)

    assert "old page" in deleting.after


def test_when_every_attempt_is_overtaken_there_is_no_answer(corpus: ragver.Corpus) -> None:
    """Each time, somebody deletes what the answer begins with."""
    keys = iter(["old.md", "new.md", "other.md"])
    corpus.put("other.md", "Everyone has 26 days of leave, says another page.")

    def overtake(word: int) -> None:
        if word == 1:
            corpus.delete(next(keys))

    with stand_in(overtake, word_s=0.0) as model:
        assert chat.answer(corpus, QUESTION, model, [], print) is None


def prompt(corpus: ragver.Corpus) -> list[Message]:
    passages = ragver.numbered(corpus.retrieve(QUESTION).hits)
    return [{"role": "system", "content": passages}, {"role": "user", "content": QUESTION}]


def test_the_stand_in_says_when_there_is_nothing_to_say() -> None:
    with stand_in(word_s=0.0) as model:
        said = "".join(model.stream([{"role": "user", "content": QUESTION}]))

    assert "The pages say nothing about that." == said
