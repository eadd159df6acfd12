"""The first-parent history of a git repository as commits, by way of the `git` program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ragver import wire
from ragver.cli.sources import (
    ACTOR_CHARACTERS_MAX,
    REASON_CHARACTERS_MAX,
    SUFFIXES,
    SourceCommit,
    corpus_name,
    line,
    operation,
    put,
)
from ragver.errors import InvalidRequest, NotInstalled

READ_BYTES = 2**16
FILE_MODES = ("100644", "100755")
"""What else git keeps under a path is a link or another repository."""
HEADER_MARK = "\x01"
HEADER = "--format=%x01%H%x00%aN%x00%s"


@dataclass(frozen=True, slots=True)
class _Change:
    """A path in one commit, as ``git log --raw`` tells of it."""

    mode: str
    blob: str
    path: str
    moved_from: str | None = None


@dataclass(slots=True)
class _Commit:
    sha: str
    author: str
    subject: str
    changes: list[_Change] = field(default_factory=list)


class GitSource:
    """A commit for each commit of a branch, first parents only, that changes a text file below `subdir`.

    Keys are paths relative to `subdir`. A file that is no UTF-8 text counts as absent while it is none.
    """

    def __init__(self, repository: Path, subdir: str = "", branch: str = "HEAD", acl: list[str] | None = None) -> None:
        self._repository = repository
        self._subdir = subdir.strip("/")
        self._acl = acl
        self._tip = self._resolved(branch)
        self.name = corpus_name(Path(self._subdir).name or repository.resolve().name.removesuffix(".git"))

    @property
    def total(self) -> int:
        """The commits of the branch that touch such a file."""
        return int(self._asked("rev-list", "--count", "--first-parent", self._tip, "--", *self._pathspecs()))

    def commits(self) -> Iterator[SourceCommit]:
        """The history, oldest first."""
        present: set[str] = set()
        with self._blobs() as read:
            for commit in self._log():
                operations = [made for change in commit.changes for made in self._operations(change, present, read)]
                if operations:
                    yield SourceCommit(
                        key=f"git:{corpus_name(self._subdir)}:{commit.sha}",
                        reason=line(commit.subject, REASON_CHARACTERS_MAX),
                        actor=line(commit.author, ACTOR_CHARACTERS_MAX),
                        operations=operations,
                    )

    def _operations(self, change: _Change, present: set[str], read: Callable[[str], bytes]) -> Iterator[wire.Operation]:
        key = self._key(change.path)
        text = None if change.mode not in FILE_MODES else _as_text(read(change.blob))
        if change.moved_from is not None and (old := self._key(change.moved_from)) in present:
            present.discard(old)
            if text is not None:
                present.add(key)
                yield operation({"op": "rename", "key": old, "new_key": key})
            else:
                yield operation({"op": "delete", "key": old})
        if text is not None:
            present.add(key)
            yield put(key, text, self._acl)
        elif key in present:
            present.discard(key)
            yield operation({"op": "delete", "key": key})

    def _key(self, path: str) -> str:
        return path.removeprefix(f"{self._subdir}/") if self._subdir else path

    def _pathspecs(self) -> list[str]:
        # With these, a rename to or from another kind of file shows as the addition or deletion that it is here.
        below = re.sub(r"([*?\[\\])", r"\\\1", self._subdir)
        return [f":(top,glob){below}{'/' if below else ''}**/*{suffix}" for suffix in sorted(SUFFIXES)]

    def _log(self) -> Iterator[_Commit]:
        arguments = ["--first-parent", "-m", "--reverse", "--raw", "-z", "-M", "--no-abbrev", "--no-color"]
        paths = ["--", *self._pathspecs()]
        with self._running("-c", "log.showRoot=true", "log", *arguments, HEADER, self._tip, *paths) as (_, output):
            yield from _commits(_tokens(output))

    @contextmanager
    def _blobs(self) -> Iterator[Callable[[str], bytes]]:
        """A function from a blob's name to its content, asked of one git process."""
        with self._running("cat-file", "--batch") as (questions, answers):

            def read(blob: str) -> bytes:
                questions.write(f"{blob}\n".encode())
                questions.flush()
                said = answers.readline().split()
                if len(said) != 3:
                    raise InvalidRequest(f"{self._repository} lacks the blob {blob}; is it a partial clone?")
                content = answers.read(int(said[2]))
                answers.read(1)
                return content

            yield read

    @contextmanager
    def _running(self, *arguments: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        with ExitStack() as stack:
            process = stack.enter_context(
                subprocess.Popen(self._command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            # Also where whoever reads stops half-way.
            stack.callback(process.kill)
            assert process.stdin is not None
            assert process.stdout is not None
            yield process.stdin, process.stdout
            process.stdin.close()
            if process.wait() != 0:
                raise InvalidRequest(f"git {arguments[0]} failed in {self._repository}")

    def _resolved(self, branch: str) -> str:
        try:
            return self._asked("rev-parse", "--verify", "--quiet", "--end-of-options", f"{branch}^{{commit}}")
        except FileNotFoundError:
            raise NotInstalled("importing a git history needs the `git` program") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip() or f"there is no commit {branch!r}"
            raise InvalidRequest(f"{self._repository} has no history to import: {said}") from error

    def _asked(self, *arguments: str) -> str:
        return subprocess.run(
            self._command(*arguments), check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout.strip()

    def _command(self, *arguments: str) -> list[str]:
        return ["git", "-C", str(self._repository), *arguments]


def _tokens(output: IO[bytes]) -> Iterator[str]:
    """What git separates by NUL; names that are no UTF-8 keep a replacement character."""
    rest = b""
    while piece := output.read(READ_BYTES):
        *whole, rest = (rest + piece).split(b"\0")
        yield from (token.decode(errors="replace") for token in whole)
    if rest.strip():
        yield rest.decode(errors="replace")


def _commits(tokens: Iterator[str]) -> Iterator[_Commit]:
    commit: _Commit | None = None
    for token in tokens:
        if token.startswith(HEADER_MARK):
            if commit is not None:
                yield commit
            commit = _Commit(token.removeprefix(HEADER_MARK), next(tokens), next(tokens))
        elif (entry := token.strip("\n")) and commit is not None:
            commit.changes.append(_change(entry, tokens))
    if commit is not None:
        yield commit


def _change(entry: str, tokens: Iterator[str]) -> _Change:
    _, mode, _, blob, status = entry.removeprefix(":").split(" ")
    path = next(tokens)
    if status.startswith("R"):
        return _Change(mode, blob, next(tokens), moved_from=path)
    return _Change(mode, blob, path)


def _as_text(content: bytes) -> str | None:
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
