"""What can be imported turns into operations that always fit the state before them, and lose nothing."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ragver import wire
from ragver.cli.git import GitSource
from ragver.cli.sources import FolderSource, ReplaySource, Source, corpus_name
from ragver.errors import InvalidRequest, InvalidText

HEADER = {"name": "sample", "commits": 3}


def apply(documents: dict[str, str], operations: Iterable[wire.Operation]) -> None:
    """What a corpus does with operations, and fails where it would refuse them."""
    for operation in operations:
        match operation:
            case wire.Put():
                assert operation.text is not None
                documents[operation.key] = operation.text
            case wire.Delete():
                del documents[operation.key]
            case wire.Rename():
                assert operation.new_key not in documents
                documents[operation.new_key] = documents.pop(operation.key)
            case _:
                pytest.fail(f"an import does not {operation.op}")


def states(source: Source) -> list[dict[str, str]]:
    """The documents after each commit."""
    documents: dict[str, str] = {}
    found = []
    for commit in source.commits():
        apply(documents, commit.operations)
        found.append(dict(documents))
    return found


def recorded(*ops: dict[str, Any], commit: str = "c1") -> dict[str, Any]:
    return {"commit": commit, "time": "2024-01-01T00:00:00Z", "author_hash": "a1", "subject": "why", "ops": list(ops)}


def history(file: Path, *records: dict[str, Any]) -> Path:
    lines = [json.dumps(record, ensure_ascii=False) for record in (HEADER, *records)]
    file.write_bytes(gzip.compress("\n".join(lines).encode()) if file.suffix == ".gz" else "\n".join(lines).encode())
    return file


class TestFolder:
    def test_files_become_documents_under_their_relative_paths(self, tmp_path: Path) -> None:
        """Hidden files, other kinds of files and folders with a text's name are left out."""
        for name in ("b.md", "a/c.txt", "a/d.markdown", ".hidden/e.md", "a/.f.md", "g.html"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        (tmp_path / "folder.md").mkdir()

        assert [{"a/c.txt": "a/c.txt", "a/d.markdown": "a/d.markdown", "b.md": "b.md"}] == states(
            FolderSource(tmp_path)
        )

    def test_texts_keep_their_line_ends(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_bytes(b"one\r\ntwo\rthree\n")

        assert [{"a.md": "one\r\ntwo\rthree\n"}] == states(FolderSource(tmp_path))

    def test_the_first_heading_is_the_title(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("# Leave\n\nThirty days.")
        (tmp_path / "b.md").write_text("Thirty days.")
        (commit,) = FolderSource(tmp_path).commits()

        assert ["Leave", None] == [put.title for put in commit.operations if isinstance(put, wire.Put)]

    def test_an_access_list_goes_to_every_document(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("secret")
        (commit,) = FolderSource(tmp_path, ["group:hr"]).commits()

        assert [["group:hr"]] == [put.acl for put in commit.operations if isinstance(put, wire.Put)]

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "latin.md").write_bytes("Müsli".encode("latin-1"))

        with pytest.raises(InvalidText, match=r"latin\.md is no UTF-8 text \(byte 1\)"):
            list(FolderSource(tmp_path).commits())

    def test_a_file_with_a_nul_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "nul.md").write_bytes(b"a\0b")

        with pytest.raises(InvalidText, match=r"'nul\.md' cannot be imported: .*NUL"):
            list(FolderSource(tmp_path).commits())


class TestReplay:
    def test_operations_are_applied_in_order(self, tmp_path: Path) -> None:
        """Also where a path that was deleted is the target of a rename later in the same record."""
        file = history(
            tmp_path / "h.jsonl.gz",
            recorded({"op": "put", "path": "a", "text": "A"}, {"op": "put", "path": "b", "text": "B"}),
            recorded(
                {"op": "delete", "path": "b"},
                {"op": "rename", "from": "a", "path": "b", "text": "A, edited"},
                {"op": "put", "path": "a", "text": "new"},
                commit="c2",
            ),
        )

        assert [{"a": "A", "b": "B"}, {"b": "A, edited", "a": "new"}] == states(ReplaySource(file))

    @pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
    def test_only_a_newline_ends_a_record(self, tmp_path: Path, separator: str) -> None:
        text = f"one{separator}two\n"
        # The JSON encoder escapes control characters but not those above them, which is the case that matters.
        file = history(tmp_path / "h.jsonl", recorded({"op": "put", "path": "a", "text": text}))

        assert [{"a": text}] == states(ReplaySource(file))

    def test_a_commit_carries_who_why_and_a_key_of_its_own(self, tmp_path: Path) -> None:
        file = history(tmp_path / "h.jsonl", recorded(), recorded(commit="c2"))
        commits = list(ReplaySource(file).commits())

        assert ["replay:sample:c1", "replay:sample:c2"] == [commit.key for commit in commits]
        assert {("a1", "why")} == {(commit.actor, commit.reason) for commit in commits}

    def test_it_is_called_like_its_file(self, tmp_path: Path) -> None:
        source = ReplaySource(history(tmp_path / "our handbook.jsonl.gz"))

        assert ("our-handbook", 3) == (source.name, source.total)

    def test_a_damaged_record_is_named_by_its_line(self, tmp_path: Path) -> None:
        file = history(tmp_path / "h.jsonl", recorded(), {"commit": "c2"})

        with pytest.raises(InvalidRequest, match=r"h\.jsonl, line 3: author_hash: Field required"):
            list(ReplaySource(file).commits())

    def test_a_lone_surrogate_is_refused_with_the_document_named(self, tmp_path: Path) -> None:
        file = tmp_path / "h.jsonl"
        record = json.dumps(recorded({"op": "put", "path": "a", "text": "\ud800"}))
        file.write_text(f"{json.dumps(HEADER)}\n{record}\n")

        with pytest.raises(InvalidText, match=r"'a' cannot be imported: .*lone surrogate"):
            list(ReplaySource(file).commits())

    def test_a_truncated_file_is_an_error_and_no_short_history(self, tmp_path: Path) -> None:
        file = history(tmp_path / "h.jsonl.gz", *(recorded(commit=str(number)) for number in range(200)))
        file.write_bytes(file.read_bytes()[:-20])

        with pytest.raises(InvalidRequest, match="damaged"):
            list(ReplaySource(file).commits())

    @pytest.mark.parametrize("content", [b"", b"no json", b"\xff\xfe", b"[]"])
    def test_a_file_that_is_no_history_is_refused(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "h.jsonl"
        file.write_bytes(content)

        with pytest.raises(InvalidRequest, match=r"h\.jsonl"):
            ReplaySource(file)


class Repository:
    """A git repository to be written to, and read commit by commit with git's own means."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        environment = os.environ | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, check=True, capture_output=True, env=environment, encoding="utf-8"
        )
        return done.stdout

    def write(self, name: str, content: str | bytes) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, subject: str = "a change") -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)

    def states(self, subdir: str = "") -> list[dict[str, str]]:
        """The Markdown files after each first-parent commit, without commits that change none."""
        found: list[dict[str, str]] = []
        for sha in self.git("rev-list", "--first-parent", "--reverse", "HEAD").split():
            names = self.git("ls-tree", "-r", "-z", "--name-only", sha).split("\0")
            state = {
                name.removeprefix(subdir): self.git("show", f"{sha}:{name}")
                for name in names
                if name.endswith(".md") and name.startswith(subdir)
            }
            if state != (found[-1] if found else {}):
                found.append(state)
        return found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


class TestGit:
    def test_each_commit_gives_the_files_as_git_has_them(self, repository: Repository) -> None:
        """Adds, edits, deletions and renames, with and without an edit, in random order (the seed is fixed)."""
        chance = random.Random(20240229)
        names = [f"{folder}{number} é.md" for folder in ("", "d/", "d/e/") for number in range(4)]
        for number in range(40):
            for _ in range(chance.randint(1, 3)):
                _change_at_random(repository, chance, names, number)
            repository.commit(f"commit {number}")

        assert repository.states() == states(GitSource(repository.path))
        assert repository.states("d/") == states(GitSource(repository.path, subdir="d"))

    def test_a_rename_is_a_rename(self, repository: Repository) -> None:
        repository.write("a.md", "text\n" * 20)
        repository.commit()
        repository.git("mv", "a.md", "b.md")
        repository.commit("moved")
        renaming = list(GitSource(repository.path).commits())[1]

        assert wire.Rename(op="rename", key="a.md", new_key="b.md") == renaming.operations[0]
        assert ("moved", "Ada") == (renaming.reason, renaming.actor)

    def test_a_merge_is_one_commit(self, repository: Repository) -> None:
        """What happened on the merged branch shows only as what the merge brought."""
        repository.write("a.md", "a")
        repository.commit()
        repository.git("switch", "--quiet", "--create", "side")
        for text in ("one", "two"):
            repository.write("side.md", text)
            repository.commit()
        repository.git("switch", "--quiet", "main")
        repository.write("b.md", "b")
        repository.commit()
        repository.git("merge", "--quiet", "--no-ff", "--message", "merge", "side")
        source = GitSource(repository.path)

        assert 3 == source.total
        assert [{"a.md": "a"}, {"a.md": "a", "b.md": "b"}, {"a.md": "a", "b.md": "b", "side.md": "two"}] == states(
            source
        )

    def test_a_file_that_is_no_text_counts_as_absent(self, repository: Repository) -> None:
        repository.write("a.md", "text")
        repository.write("b.md", "b")
        repository.commit()
        repository.write("a.md", b"\xff\x00")
        repository.commit()
        repository.write("a.md", "text again")
        repository.commit()

        assert [{"a.md": "text", "b.md": "b"}, {"b.md": "b"}, {"a.md": "text again", "b.md": "b"}] == states(
            GitSource(repository.path)
        )

    def test_links_and_other_kinds_of_files_are_left_out(self, repository: Repository) -> None:
        repository.write("a.md", "a")
        (repository.path / "link.md").symlink_to("a.md")
        repository.write("page.html", "<p>")
        repository.commit()
        repository.git("mv", "page.html", "page.md")
        repository.commit()

        assert [{"a.md": "a"}, {"a.md": "a", "page.md": "<p>"}] == states(GitSource(repository.path))

    def test_a_folder_named_like_a_pattern_is_taken_literally(self, repository: Repository) -> None:
        repository.write("[ab]/x.md", "x")
        repository.write("a/y.md", "y")
        repository.commit()

        assert [{"x.md": "x"}] == states(GitSource(repository.path, subdir="[ab]/"))

    @pytest.mark.parametrize("branch", ["nowhere", "--all", ""])
    def test_a_branch_that_is_none_is_refused(self, repository: Repository, branch: str) -> None:
        repository.commit()

        with pytest.raises(InvalidRequest, match="no history to import"):
            GitSource(repository.path, branch=branch)

    def test_a_folder_that_is_no_repository_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        (tmp_path / "plain").mkdir()

        with pytest.raises(InvalidRequest, match="no history to import"):
            GitSource(tmp_path / "plain")


def _change_at_random(repository: Repository, chance: random.Random, names: list[str], number: int) -> None:
    name, other = chance.sample(names, 2)
    file, target = repository.path / name, repository.path / other
    match chance.choice(["edit", "edit", "delete", "rename", "rename and edit"]):
        case "delete":
            file.unlink(missing_ok=True)
        case "edit":
            kept = file.read_text() if file.exists() else "common line\n" * 10
            repository.write(name, f"{kept}edit {number}\n")
        case moved if file.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            if moved == "rename and edit":
                repository.write(other, f"{target.read_text()}moved {number}\n")


@pytest.mark.parametrize(
    ("text", "expected"), [("our handbook", "our-handbook"), ("..", "corpus"), ("a" * 300, "a" * 100), ("é", "corpus")]
)
def test_a_corpus_gets_a_name_that_it_may_have(text: str, expected: str) -> None:
    assert expected == corpus_name(text)
    assert expected == wire.CorpusCreate(name=expected).name
