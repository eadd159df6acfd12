"""What was done to documents and what readers were shown, by one clock; and which of it should not have been shown.

Judged by times, texts and epochs alone: what the product says about a chunk plays no part. Where that is not enough
to be sure, the reader gets the benefit of the doubt, so that whatever is called wrong is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

EVERYBODY = "*"


class Kind(StrEnum):
    CREATE = "create"
    EDIT = "edit"
    DELETE = "delete"
    ERASE = "erase"
    RELABEL = "relabel"


@dataclass(frozen=True, slots=True)
class Deed:
    """One change of one document, as whoever asked for it saw it. The deeds of a document do not overlap."""

    kind: Kind
    document: int
    epoch: int
    started_s: float
    returned_s: float
    """When the fence returned."""
    text: str = ""
    """The whole text after an edit."""
    acl: frozenset[str] = frozenset()
    """The labels after a creation or a change of them."""


@dataclass(frozen=True, slots=True)
class Cited:
    """A hit that a sentence rests on, as it was retrieved."""

    key: str
    epoch: int
    """At which it was alive."""
    chunk_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A piece of an answer that has reached its reader."""

    at_s: float
    cited: tuple[Cited, ...]
    principals: frozenset[str]


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that was shown although the fence of what forbids it had returned."""

    shown: Shown
    cited: Cited
    deed: Deed

    def __str__(self) -> str:
        late_ms = (self.shown.at_s - self.deed.returned_s) * 1000
        return (
            f"chunk {self.cited.chunk_id} of {self.cited.key}, read at epoch {self.cited.epoch}, was shown "
            f"{late_ms:.1f} ms after the fence of epoch {self.deed.epoch} ({self.deed.kind}) had returned"
        )


class Deeds:
    """Everything that was done to the documents of a corpus."""

    def __init__(self) -> None:
        self.all: list[Deed] = []
        self._of: defaultdict[int, list[Deed]] = defaultdict(list)
        self._names: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)

    def add(self, deed: Deed) -> None:
        self.all.append(deed)
        self._of[deed.document].append(deed)

    def name(self, key: str, epoch: int, document: int) -> None:
        """From this epoch on the document lies under the key."""
        self._names[key].append((epoch, document))

    def document_at(self, key: str, epoch: int) -> int:
        """Which document lay under the key at the epoch."""
        names = self._names[key]
        return names[bisect_right(names, epoch, key=lambda name: name[0]) - 1][1]

    def wrongs(self, shown: Iterable[Shown]) -> list[Wrong]:
        """What should not have been shown, and why."""
        return [
            Wrong(piece, cited, deed)
            for piece in shown
            for cited in piece.cited
            if (deed := self._forbids(piece, cited)) is not None
        ]

    def _forbids(self, shown: Shown, cited: Cited) -> Deed | None:
        deeds = self._of[self.document_at(cited.key, cited.epoch)]
        for deed in deeds:
            if deed.returned_s < shown.at_s and deed.epoch > cited.epoch and _kills(deed, cited):
                return deed
        return _denies(deeds, shown)


def _kills(deed: Deed, cited: Cited) -> bool:
    """Whether the chunk cannot have lived on: a document is the sum of its chunks."""
    match deed.kind:
        case Kind.DELETE | Kind.ERASE:
            return True
        case Kind.EDIT:
            return cited.text not in deed.text
        case _:
            return False


def _denies(deeds: Iterable[Deed], shown: Shown) -> Deed | None:
    """The change of access that stood alone when the piece was shown, if it does not let this reader read."""
    last: Deed | None = None
    for deed in deeds:
        if deed.kind not in (Kind.CREATE, Kind.RELABEL) or deed.started_s > shown.at_s:
            continue
        if deed.returned_s >= shown.at_s:
            # It takes effect at some moment of these: either answer is right.
            return None if last is None or _lets(deed, shown) or _lets(last, shown) else last
        last = deed
    return None if last is None or _lets(last, shown) else last


def _lets(deed: Deed, shown: Shown) -> bool:
    return not deed.acl.isdisjoint(shown.principals | {EVERYBODY})
