"""The sample handbook of the demo: an invented company's pages, their history, and the scenes played on them.

The texts are data, in the folder of the same name: ``pages/`` holds each page as it was first written,
``history.toml`` what happened to it afterwards, ``scenes.toml`` the questions and answers of the demo.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, Final

from ragver import wire
from ragver.types import WILDCARD, Epoch, FieldType

FILTERABLE: Final = {"team": FieldType.KEYWORD, "year": FieldType.INTEGER}
"""The metadata of every page: the team that keeps it, and the year in which it was last edited."""

Pages = dict[str, wire.Put]
"""The living pages by key, each as the operation that would put it."""

_FOLDER = resources.files("ragver.demo") / "handbook"
_MARKER = re.compile(r"\[([a-z]+)\]")


@dataclass(frozen=True, slots=True)
class DemoCommit:
    """One step of the handbook's history. The first one expects an empty corpus."""

    time: datetime
    actor: str
    reason: str
    operations: list[wire.Operation]


@dataclass(frozen=True, slots=True)
class Source:
    """A sentence or a table row that an answer leans on, word for word as it stands in the page."""

    key: str
    passage: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Generated text, written beforehand. Its markers name sources, ``[card]``, until it is known where they rank."""

    template: str
    sources: Mapping[str, Source]

    def cite(self, hits: Sequence[wire.Hit]) -> str:
        """The answer with the refs of these hits in its markers; LookupError if a source is not among them."""
        return _MARKER.sub(lambda marker: f"[{_ref(self.sources[marker[1]], hits)}]", self.template)


@dataclass(frozen=True, slots=True)
class Scene:
    """A question, what is answered, and what happens to the handbook while the answer is being written."""

    name: str
    question: str
    principals: tuple[str, ...]
    answer: Answer
    live: wire.CommitRequest | None
    afterwards: Answer
    """The answer to the same question after `live`; where there is `as_of`, the answer of today."""
    as_of: datetime | None = None
    """The time that the question is about, in the handbook's own history: `epoch_at` finds its epoch."""


def commits() -> list[DemoCommit]:
    """The history of the handbook, oldest commit first."""
    pages: Pages = {}
    return [_commit(pages, table) for table in _table("history.toml")["commit"]]


def epoch_at(history: Sequence[DemoCommit], time: datetime) -> Epoch:
    """The handbook's epoch at this time, in a corpus whose first commits are `history`, one an epoch.

    The ledger dates commits by its own clock, so in the demo they all lie within a second.
    """
    return Epoch(sum(commit.time <= time for commit in history))


def replay(operations: Sequence[wire.Operation], pages: Pages) -> None:
    """Carry out the operations on `pages`; KeyError if one of them needs a page that is not there."""
    for operation in operations:
        match operation:
            case wire.Put():
                pages[operation.key] = operation
            case wire.Delete():
                del pages[operation.key]
            case wire.Rename():
                pages[operation.new_key] = pages.pop(operation.key).model_copy(update={"key": operation.new_key})
            case wire.SetAcl():
                pages[operation.key] = pages[operation.key].model_copy(update={"acl": operation.acl})
            case wire.SetMetadata():
                pages[operation.key] = pages[operation.key].model_copy(update={"metadata": operation.metadata})


# ── from tables to operations ───────────────────────────────────────────────────────────────────────────────


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))


def _commit(pages: Pages, table: dict[str, Any]) -> DemoCommit:
    time: datetime = table["time"]
    return DemoCommit(time, table["actor"], table["reason"], _operations(pages, table, time.year))


def _operations(pages: Pages, table: dict[str, Any], year: int) -> list[wire.Operation]:
    """The operations of one commit, which are also carried out on `pages`."""
    operations: list[wire.Operation] = []
    for step in (_added, _edited, _moved, _labelled):
        done = list(step(pages, table, year))
        replay(done, pages)
        operations += done
    return operations


def _added(_pages: Pages, table: dict[str, Any], year: int) -> Iterator[wire.Operation]:
    for page in table.get("add", []):
        text = (_FOLDER / "pages" / page["key"]).read_text(encoding="utf-8")
        metadata = {"team": page["team"], "year": year}
        acl = page.get("acl", [WILDCARD])
        yield wire.Put(op="put", key=page["key"], text=text, title=_title(text), metadata=metadata, acl=acl)


def _edited(pages: Pages, table: dict[str, Any], year: int) -> Iterator[wire.Operation]:
    texts: dict[str, str] = {}
    for edit in table.get("edit", []):
        key = edit["key"]
        texts[key] = _replaced(texts.get(key, pages[key].text or ""), edit["old"], edit["new"])
    for key, text in texts.items():
        metadata = pages[key].metadata | {"year": year}
        yield pages[key].model_copy(update={"text": text, "title": _title(text), "metadata": metadata})


def _moved(_pages: Pages, table: dict[str, Any], _year: int) -> Iterator[wire.Operation]:
    for key, new_key in table.get("rename", {}).items():
        yield wire.Rename(op="rename", key=key, new_key=new_key)
    for key in table.get("delete", []):
        yield wire.Delete(op="delete", key=key)


def _labelled(pages: Pages, table: dict[str, Any], _year: int) -> Iterator[wire.Operation]:
    for key, acl in table.get("acl", {}).items():
        yield wire.SetAcl(op="set_acl", key=key, acl=acl)
    for key, team in table.get("team", {}).items():
        yield wire.SetMetadata(op="set_metadata", key=key, metadata=pages[key].metadata | {"team": team})


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"a passage to be replaced occurs {text.count(old)} times, not once: {old!r}")
    return text.replace(old, new)


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


# ── the scenes ──────────────────────────────────────────────────────────────────────────────────────────────


def _ref(source: Source, hits: Sequence[wire.Hit]) -> int:
    for hit in hits:
        if hit.document.key == source.key and source.passage in hit.text:
            return hit.ref
    raise LookupError(f"no hit holds this passage of {source.key}: {source.passage}")


def _scenes() -> tuple[Scene, ...]:
    """All scenes; each one's live commit fits the state that the history and the scenes before it leave behind."""
    pages: Pages = {}
    history = commits()
    for commit in history:
        replay(commit.operations, pages)
    # The scenes are played in the handbook's own time, right after its last commit.
    year = history[-1].time.year
    return tuple(_scene(pages, table, year) for table in _table("scenes.toml")["scene"])


def _scene(pages: Pages, table: dict[str, Any], year: int) -> Scene:
    return Scene(
        name=table["name"],
        question=table["question"],
        principals=tuple(table.get("principals", [])),
        answer=_answer(table),
        live=_live(pages, table["live"], year) if "live" in table else None,
        afterwards=_answer(table["afterwards"]),
        as_of=table.get("as_of"),
    )


def _live(pages: Pages, table: dict[str, Any], year: int) -> wire.CommitRequest:
    ops = _operations(pages, table, year)
    return wire.CommitRequest(ops=ops, reason=table["reason"], actor=table["actor"])


def _answer(table: dict[str, Any]) -> Answer:
    sources = {name: Source(source["key"], source["passage"]) for name, source in table.get("sources", {}).items()}
    return Answer(table["answer"], sources)


SCENES: Final = _scenes()
