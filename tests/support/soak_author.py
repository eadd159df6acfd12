"""Somebody who keeps changing the documents: the recorded history, and beside it deletes, cuts, access, erasures."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from ragver import wire
from ragver.client import AsyncClient
from tests.support.deeds import EVERYBODY, Cited, Deed, Deeds, Kind

IN_FLIGHT_MAX = 64
"""Fenced changes that may wait for their fences at the same time."""
FIRST_COMMIT_PAGES = 200
STAFF, BOARD = "group:staff", "group:board"
LABELS = ((EVERYBODY,), (STAFF,), (BOARD,))
SHARES = {"history": 55, "cut": 15, "delete": 12, "relabel": 13, "erase": 5}
"""Per cent of the changes. Where the history has to wait for a fence, one of the others takes its turn."""
AIMS_MAX = 8
"""Pages looked at for one that no change is about."""
RECORDS_AHEAD = 50
"""Records of the history that are looked at while the documents of the first one wait for a fence."""
PAGES_KEPT_SHARE = 0.8
"""With fewer pages than this share of the first ones, deleted ones are put back."""

Step = dict[str, Any]
"""An operation in the history's own format; `set_acl` and `erase` are added to it."""


@dataclass(slots=True)
class Page:
    """A living document."""

    document: int
    text: str
    acl: tuple[str, ...] = (EVERYBODY,)


@dataclass(frozen=True, slots=True)
class Change:
    """What is done in one commit, or one erasure."""

    name: str
    steps: Sequence[Step]

    @property
    def keys(self) -> set[str]:
        return {step[name] for step in self.steps for name in ("path", "from") if name in step}


class Author:
    """Makes `rate_per_s` fenced changes a second, each about documents that no other change is about just then."""

    def __init__(
        self,
        client: AsyncClient,
        corpus: str,
        records: Sequence[dict[str, Any]],
        *,
        chance: random.Random,
        rate_per_s: float,
        aimed_share: float,
        cited_now: Callable[[], Sequence[Cited]],
    ) -> None:
        self.deeds = Deeds()
        self.done: Counter[str] = Counter()
        """Changes by what they were."""
        self._client = client
        self._corpus = corpus
        self._records = list(reversed(records))
        self._chance = chance
        self._rate_per_s = rate_per_s
        self._aimed_share = aimed_share
        self._cited_now = cited_now
        self._pages: dict[str, Page] = {}
        self._gone: dict[str, str] = {}
        self._busy: set[str] = set()
        self._reserved: set[str] = set()
        """What the next record of the history is about; a record of hundreds would never find them all at rest."""
        self._left: set[str] = set()
        """Keys that a document has left for another: to erase such a key would erase that document too."""
        self._documents = count(1)
        self._pages_at_first = 0

    async def begin(self, pages: int | None = None) -> None:
        """Put the starting state of the history, or its first pages, into the corpus."""
        puts = self._records.pop()["ops"][:pages]
        for start in range(0, len(puts), FIRST_COMMIT_PAGES):
            await self._make(Change("begin", puts[start : start + FIRST_COMMIT_PAGES]), fence=False)
        self._pages_at_first = len(self._pages)
        self.done.clear()

    async def work(self, until_s: float) -> None:
        """Change after change; returns when the last fence has returned."""
        begun_s, room = time.monotonic(), asyncio.Semaphore(IN_FLIGHT_MAX)
        async with asyncio.TaskGroup() as changes:
            for number in count():
                due_s = begun_s + number / self._rate_per_s
                if due_s > until_s:
                    return
                await asyncio.sleep(due_s - time.monotonic())
                await room.acquire()
                change = self._next()
                self._busy |= change.keys
                changes.create_task(self._made(change)).add_done_callback(lambda _: room.release())

    async def _made(self, change: Change) -> None:
        await self._make(change, fence=True)
        self._busy -= change.keys

    # ── what to do next ─────────────────────────────────────────────────────────────────────────────────────

    def _next(self) -> Change:
        first, other = self._drawn(SHARES), self._drawn({**SHARES, "history": 0})
        if first == "history" and (change := self._of_history()) is not None:
            return change
        if len(self._pages) < PAGES_KEPT_SHARE * self._pages_at_first:
            return self._restoration()
        return self._of_one_page(other)

    def _drawn(self, shares: Mapping[str, int]) -> str:
        return self._chance.choices(list(shares), list(shares.values()))[0]

    def _restoration(self) -> Change:
        key = self._chance.choice(self._at_rest(self._gone))
        return Change("restore", [{"op": "put", "path": key, "text": self._gone[key]}])

    def _of_history(self) -> Change | None:
        """The next record whose documents nothing waits for, as far as they are still what the history takes them for.

        The order of the records is kept for each document.
        """
        waiting = set(self._busy)
        self._reserved = set()
        for place in range(len(self._records) - 1, max(-1, len(self._records) - 1 - RECORDS_AHEAD), -1):
            operations = self._records[place]["ops"]
            keys = Change("history", operations).keys
            if keys.isdisjoint(waiting):
                del self._records[place]
                change = Change("history", self._fitting(operations))
                if change.steps and len(change.keys) == sum(1 + ("from" in step) for step in change.steps):
                    return change
            else:
                self._reserved = self._reserved or keys
                waiting |= keys
        return None

    def _fitting(self, operations: Sequence[Step]) -> list[Step]:
        steps: list[Step] = []
        for operation in operations:
            path, source = operation["path"], operation.get("from")
            if operation["op"] == "delete":
                steps += [operation] if path in self._pages else []
            elif source is None or (source in self._pages and path not in self._pages):
                steps.append(operation)
            else:
                steps += [{"op": "delete", "path": source}] if source in self._pages else []
                steps.append({"op": "put", "path": path, "text": operation["text"]})
        return steps

    def _of_one_page(self, name: str) -> Change:
        key, cited = self._aim()
        page = self._pages[key]
        match name:
            case "relabel":
                acl = self._chance.choice([labels for labels in LABELS if labels != page.acl])
                return Change(name, [{"op": "set_acl", "path": key, "acl": acl}])
            case "erase" if key not in self._left:
                return Change(name, [{"op": "erase", "path": key}])
            case "delete":
                return Change(name, [{"op": "delete", "path": key}])
            case _:
                return Change("cut", [{"op": "put", "path": key, "text": self._cut(page.text, cited)}])

    def _aim(self) -> tuple[str, Cited | None]:
        """A page that no change is about, and what is cited of it."""
        if self._chance.random() < self._aimed_share and (cited_now := self._cited_now()):
            for cited in self._chance.choices(cited_now, k=AIMS_MAX):
                if cited.key in self._at_rest(self._pages):
                    return cited.key, cited
        return self._chance.choice(self._at_rest(self._pages)), None

    def _at_rest(self, keys: Iterable[str]) -> list[str]:
        """Those that no change is about, and none is to be soon if that can be helped."""
        free = [key for key in keys if key not in self._busy]
        return [key for key in free if key not in self._reserved] or free

    def _cut(self, text: str, cited: Cited | None) -> str:
        if cited is not None and cited.text in text:
            return text.replace(cited.text, "")
        paragraphs = text.split("\n\n")
        del paragraphs[self._chance.randrange(len(paragraphs))]
        return "\n\n".join(paragraphs)

    # ── doing it ────────────────────────────────────────────────────────────────────────────────────────────

    async def _make(self, change: Change, *, fence: bool) -> None:
        started_s = time.monotonic()
        if change.name == "erase":
            keys = [step["path"] for step in change.steps]
            epoch = (await self._client.erase(self._corpus, keys, reason="somebody has asked for it")).epoch
        else:
            operations = [operation for step in change.steps for operation in self._operations(step)]
            epoch = (await self._client.commit(self._corpus, operations, reason=change.name, fence=fence)).epoch
        returned_s = time.monotonic()
        for step in change.steps:
            self._note(step, epoch, started_s, returned_s)
        self.done[change.name] += 1

    def _operations(self, step: Step) -> list[wire.Operation]:
        path, page = step["path"], self._pages.get(_source(step))
        match step["op"]:
            case "delete":
                return [wire.Delete(op="delete", key=path)]
            case "set_acl":
                return [wire.SetAcl(op="set_acl", key=path, acl=list(step["acl"]))]
        acl = [EVERYBODY] if page is None else list(page.acl)
        put = wire.Put(op="put", key=path, text=step["text"], acl=acl)
        if step["op"] == "put":
            return [put]
        return [wire.Rename(op="rename", key=step["from"], new_key=path), put]

    def _note(self, step: Step, epoch: int, started_s: float, returned_s: float) -> None:
        """Keep what was done, and what the documents are like now."""

        def did(kind: Kind, page: Page) -> None:
            self.deeds.add(Deed(kind, page.document, epoch, started_s, returned_s, page.text, frozenset(page.acl)))

        path = step["path"]
        match step["op"]:
            case "delete" | "erase":
                page = self._pages.pop(path)
                self._gone[path] = page.text
                did(Kind(step["op"]), page)
            case "set_acl":
                page = self._pages[path]
                page.acl = step["acl"]
                did(Kind.RELABEL, page)
            case "put" if path not in self._pages:
                page = self._pages[path] = Page(next(self._documents), step["text"])
                self.deeds.name(path, epoch, page.document)
                did(Kind.CREATE, page)
            case _:
                if "from" in step:
                    self._left.add(step["from"])
                page = self._pages[path] = self._pages.pop(_source(step))
                page.text = step["text"]
                self.deeds.name(path, epoch, page.document)
                did(Kind.EDIT, page)


def _source(step: Step) -> str:
    """Where the document of a step lay before it."""
    return str(step.get("from", step["path"]))
