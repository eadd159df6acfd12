"""The recorded history of a real handbook, and a plain model of it to compare with.

The format is told in the README beside the data; record 0 is the starting state and becomes epoch 1.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).resolve().parents[3] / "shared" / "data"
HISTORY = DIRECTORY / "sourcegraph-handbook.jsonl.gz"
QUESTIONS = DIRECTORY / "sourcegraph-handbook.questions.jsonl"

Documents = dict[str, str]
"""Texts by path."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question whose answer stood in a page for a part of the history."""

    id: str
    question: str
    path: str
    answer_span: str
    alive_from: int
    dead_at: int | None
    death: str | None

    @property
    def last_alive(self) -> int | None:
        """The last record that has the answer; None if it never died."""
        return None if self.dead_at is None else self.dead_at - 1


class RecordedHistory:
    """The first records of the history, replayed by nothing but a dictionary."""

    def __init__(self, records: int | None = None) -> None:
        with gzip.open(HISTORY, "rt", encoding="utf-8", newline="\n") as lines:
            next(lines)
            self.records: list[dict[str, Any]] = [json.loads(line) for line in islice(lines, records)]

    def __len__(self) -> int:
        return len(self.records)

    def documents_at(self, *records: int) -> Iterator[Documents]:
        """The documents after each of these records, which ascend."""
        documents: Documents = {}
        done = 0
        for record in records:
            for applied in self.records[done : record + 1]:
                _apply(applied, documents)
            done = record + 1
            yield dict(documents)

    def lives_on_as(self, path: str, record: int) -> str | None:
        """Where the page that lay at `path` after `record` is at the end; None if it was deleted."""
        there: str | None = path
        for later in self.records[record + 1 :]:
            for operation in later["ops"]:
                if operation["op"] == "delete" and operation["path"] == there:
                    there = None
                elif operation["op"] == "rename" and operation["from"] == there:
                    there = operation["path"]
                elif operation["op"] == "put" and there is None and operation["path"] == path:
                    there = path
        return there

    def questions(self) -> list[AskedQuestion]:
        """The questions whose answer lives in the part of the history that is here."""
        with QUESTIONS.open(encoding="utf-8", newline="\n") as lines:
            asked = [_question(json.loads(line)) for line in lines]
        return [_cut_short(one, len(self)) for one in asked if one.alive_from < len(self)]


def write_slice(file: Path, records: int) -> None:
    """A recording of the first `records` records, in the format of the whole."""
    with (
        gzip.open(HISTORY, "rt", encoding="utf-8", newline="\n") as lines,
        gzip.open(file, "wt", encoding="utf-8", newline="\n") as slice_,
    ):
        slice_.writelines(islice(lines, records + 1))


def _apply(record: dict[str, Any], documents: Documents) -> None:
    for operation in record["ops"]:
        match operation["op"]:
            case "put":
                documents[operation["path"]] = operation["text"]
            case "delete":
                del documents[operation["path"]]
            case "rename":
                del documents[operation["from"]]
                documents[operation["path"]] = operation["text"]


def _question(row: dict[str, Any]) -> AskedQuestion:
    return AskedQuestion(
        id=row["id"],
        question=row["question"],
        path=row["path"],
        answer_span=row["answer_span"],
        alive_from=row["alive_from_record"],
        dead_at=row["dead_at_record"],
        death=row["death"],
    )


def _cut_short(question: AskedQuestion, records: int) -> AskedQuestion:
    """As the question stands when the history ends after so many records."""
    if question.dead_at is None or question.dead_at < records:
        return question
    return AskedQuestion(
        question.id, question.question, question.path, question.answer_span, question.alive_from, None, None
    )
