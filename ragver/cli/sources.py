"""What can be imported, as commits: a folder as it is, and recorded histories. Nothing here talks to a server."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ragver import wire
from ragver.errors import InvalidRequest, InvalidText
from ragver.splitting import title_of

SUFFIXES = frozenset({".md", ".markdown", ".txt"})
REASON_CHARACTERS_MAX = 1_000
ACTOR_CHARACTERS_MAX = 255

_operation = TypeAdapter[wire.Operation](wire.Operation)


@dataclass(frozen=True, slots=True)
class SourceCommit:
    """One commit to make. Its key tells it apart from all others of the source; None: made anew every time."""

    key: str | None
    reason: str | None
    actor: str | None
    operations: list[wire.Operation]


class Source(Protocol):
    """Commits in the order in which they are to be made; the same ones each time they are asked for."""

    name: str
    """What to call the corpus if nobody says."""

    @property
    def total(self) -> int | None:
        """How many commits there are at most, if that is known."""

    def commits(self) -> Iterator[SourceCommit]:
        """All commits. Raises ``InvalidRequest`` at what cannot be read."""


def corpus_name(text: str) -> str:
    """The nearest thing to `text` that a corpus may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:100] or "corpus"


def line(text: str, characters_max: int) -> str | None:
    """Text from elsewhere as one line that a commit can carry; None if nothing is left of it."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:characters_max] or None


def put(key: str, text: str, acl: list[str] | None = None) -> wire.Operation:
    """The operation that gives a document its text and, from its first heading, its title."""
    fields: dict[str, Any] = {"op": "put", "key": key, "text": text}
    if acl:
        fields["acl"] = acl
    if (title := title_of(text)) is not None:
        fields["title"] = title
    return operation(fields)


def operation(fields: dict[str, Any]) -> wire.Operation:
    """An operation from its parts; an ``InvalidRequest`` that names the document if they make none."""
    try:
        return _operation.validate_python(fields)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        kind = InvalidText if any(one["type"] == "invalid_text" for one in error.errors()) else InvalidRequest
        raise kind(f"document {fields['key']!r} cannot be imported: {said}") from error


class FolderSource:
    """The text files below a folder as one commit; keys are their paths relative to it. Hidden ones are left out."""

    total = 1

    def __init__(self, folder: Path, acl: list[str] | None = None) -> None:
        self.name = corpus_name(folder.resolve().name)
        self._folder = folder
        self._acl = acl

    def commits(self) -> Iterator[SourceCommit]:
        """The commit that makes a corpus hold what the folder holds."""
        operations = [put(key, _read(file), self._acl) for key, file in self._files()]
        yield SourceCommit(None, line(f"import of {self._folder}", REASON_CHARACTERS_MAX), None, operations)

    def _files(self) -> list[tuple[str, Path]]:
        found = []
        for file in self._folder.rglob("*"):
            inside = file.relative_to(self._folder)
            if file.suffix in SUFFIXES and file.is_file() and not any(part.startswith(".") for part in inside.parts):
                found.append((inside.as_posix(), file))
        return sorted(found)


def _read(file: Path) -> str:
    try:
        # Bytes, since reading as text would change the line ends.
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidText(f"{file} is no UTF-8 text (byte {error.start}); convert it, or move it elsewhere") from None


class _RecordedPut(BaseModel):
    op: Literal["put"]
    path: str
    text: str


class _RecordedDelete(BaseModel):
    op: Literal["delete"]
    path: str


class _RecordedRename(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    op: Literal["rename"]
    source: Annotated[str, Field(alias="from")]
    path: str
    text: str


class _Record(BaseModel):
    commit: str
    author_hash: str
    subject: str
    ops: list[Annotated[_RecordedPut | _RecordedDelete | _RecordedRename, Field(discriminator="op")]]


class _Header(BaseModel):
    name: str
    commits: int | None = None


_Parsed = TypeVar("_Parsed", bound=BaseModel)


class ReplaySource:
    """A recorded history: JSON lines, the first one a header, then a record a commit; may be gzipped."""

    def __init__(self, file: Path, acl: list[str] | None = None) -> None:
        self.name = corpus_name(file.name.removesuffix(".gz").removesuffix(".jsonl"))
        self._file = file
        self._acl = acl
        self._header = self._read_header()

    @property
    def total(self) -> int | None:
        """As the header says."""
        return self._header.commits

    def commits(self) -> Iterator[SourceCommit]:
        """A commit for each record."""
        lines = self._lines()
        next(lines)
        for number, text in lines:
            record = self._parsed(_Record, number, text)
            yield SourceCommit(
                key=f"replay:{corpus_name(self._header.name)}:{record.commit}",
                reason=line(record.subject, REASON_CHARACTERS_MAX),
                actor=line(record.author_hash, ACTOR_CHARACTERS_MAX),
                operations=[made for recorded in record.ops for made in self._operations(recorded)],
            )

    def _operations(self, recorded: _RecordedPut | _RecordedDelete | _RecordedRename) -> list[wire.Operation]:
        match recorded:
            case _RecordedPut():
                return [put(recorded.path, recorded.text, self._acl)]
            case _RecordedDelete():
                return [operation({"op": "delete", "key": recorded.path})]
            case _RecordedRename():
                renamed = operation({"op": "rename", "key": recorded.source, "new_key": recorded.path})
                return [renamed, put(recorded.path, recorded.text, self._acl)]

    def _read_header(self) -> _Header:
        try:
            number, text = next(self._lines())
        except StopIteration:
            raise InvalidRequest(f"{self._file} is empty") from None
        return self._parsed(_Header, number, text)

    def _parsed(self, kind: type[_Parsed], number: int, text: str) -> _Parsed:
        try:
            # Not pydantic's own parser, which refuses the lone surrogates that deserve a better message.
            return kind.model_validate(json.loads(text))
        except (ValidationError, ValueError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
            place = ".".join(map(str, first["loc"]))
            raise InvalidRequest(
                f"{self._file}, line {number}: {place}{': ' if place else ''}{first['msg']}"
            ) from error

    def _lines(self) -> Iterator[tuple[int, str]]:
        opened = gzip.open if self._file.suffix == ".gz" else open
        try:
            # With this newline, U+2028 and the like inside of texts end no line.
            with opened(self._file, "rt", encoding="utf-8", newline="\n") as stream:
                yield from ((number, text) for number, text in enumerate(stream, 1) if text.strip())
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{self._file} is damaged or no recorded history: {error}") from error
