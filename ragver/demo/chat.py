"""A chat over a corpus with the gate in front of the model: ``python -m ragver.demo.chat "How many days of leave?"``.

An example to copy from: ``answer`` is the whole of it, the rest is for the terminal. It speaks to any service with
OpenAI's chat completions (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``, ``--model``); without one, a stand-in on this
machine puts its answers together from the passages.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Final

import httpx

import ragver
from ragver.client import Client, Corpus
from ragver.demo import handbook
from ragver.demo.model import Model, stand_in
from ragver.errors import RagverError
from ragver.gate import End

PASSAGES: Final = 5
ATTEMPTS_MAX: Final = 3
"""How often an answer is begun, each time from a new retrieval."""
INSTRUCTIONS: Final = """\
Answer from the numbered passages below and from nothing else. Put the number of the passage that says it in brackets
after each claim, like [1]. If the passages do not say it, say so.

"""


def answer(
    corpus: Corpus, question: str, model: Model, principals: Sequence[str], show: Callable[[str], None]
) -> End | None:
    """Answer a question, showing nothing that was not validated; None if each attempt had to be taken back."""
    for _ in range(ATTEMPTS_MAX):
        found = corpus.retrieve(question, k=PASSAGES, principals=principals)
        stream = model.stream(
            [
                {"role": "system", "content": INSTRUCTIONS + ragver.numbered(found.hits)},
                {"role": "user", "content": question},
            ]
        )
        with corpus.gate(found.snapshot, stream, principals=principals) as gate:
            try:
                for text in gate:
                    show(text)
            except ragver.AnswerRetracted as retracted:
                show(f"\n(taken back: {retracted.detail})\n")
            else:
                return gate.end
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the question, or those that come on standard input, a line each.

    0: each answer stands. 1: one had to be taken back for good. 2: it could not be done.
    """
    told = _parser().parse_args(arguments)
    questions = [told.question] if told.question else map(str.strip, sys.stdin)
    try:
        with ExitStack() as stack:
            model = stack.enter_context(_model(told))
            corpus = stack.enter_context(_corpus(told))
            ends = [_ask(corpus, question, model, told.principal) for question in questions if question]
    except (RagverError, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(ends) else 1


def _ask(corpus: Corpus, question: str, model: Model, principals: Sequence[str]) -> bool:
    end = answer(corpus, question, model, principals, lambda text: print(text, end="", flush=True))
    print()
    if end is None:
        print("(no answer: the pages changed each time)")
        return False
    cited = {one.ref: one for one in end.verdict.citations if one.ref is not None}
    for ref, citation in sorted(cited.items()):
        print(f"  [{ref}] {citation.document_key}, version {citation.version}")
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ragver.demo.chat", description="Chat over a corpus, with a gate.")
    parser.add_argument("question", nargs="?", help="asked once; without it, questions are read from standard input")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="a ragver server; its corpus must be named")
    where.add_argument("--data-dir", metavar="DIR", help="a data directory; its corpus must be named")
    parser.add_argument("--corpus", metavar="NAME", default="handbook", help="without --url and --data-dir: a sample")
    parser.add_argument("--principal", metavar="LABEL", action="append", default=[], help="a label of the reader")
    parser.add_argument(
        "--model", default=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), help="as the service calls it"
    )
    parser.add_argument(
        "--model-url", metavar="URL", default=os.environ.get("OPENAI_BASE_URL"), help="like https://…/v1"
    )
    return parser


@contextmanager
def _model(told: argparse.Namespace) -> Iterator[Model]:
    if told.model_url is not None:
        yield Model(told.model_url, told.model, os.environ.get("OPENAI_API_KEY"))
        return
    print("(no OPENAI_BASE_URL: a stand-in answers with sentences from the passages)", file=sys.stderr)
    with stand_in() as model:
        yield model


@contextmanager
def _corpus(told: argparse.Namespace) -> Iterator[Corpus]:
    if told.url is not None:
        with Client(told.url, api_key=os.environ.get("RAGVER_API_KEY")) as client:
            yield client[told.corpus]
    elif told.data_dir is not None:
        with ragver.open(told.data_dir) as client:
            yield client[told.corpus]
    else:
        # The user's own stores are none of the sample's business.
        with (
            TemporaryDirectory(prefix="ragver-chat-") as directory,
            ragver.open(f"{directory}/data", database_url=None, qdrant_url=None) as client,
        ):
            client.create_corpus("handbook", filterable=handbook.FILTERABLE)
            for commit in handbook.commits():
                client.commit("handbook", commit.operations, reason=commit.reason, actor=commit.actor)
            yield client["handbook"]


if __name__ == "__main__":
    sys.exit(main())
