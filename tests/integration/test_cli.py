"""The command line does what it says, over a server and on stores of its own, and exits as promised."""

from __future__ import annotations

import gzip
import json
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ragver import wire
from ragver.embedded.datadir import DataDir
from tests.support.cli import CommandLine, Serving
from tests.support.postgres import open_directory

APPLIED_S_MAX = 30
_serial = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[CommandLine, Serving]]:
    """One server for the tests that only need some server."""
    with open_directory() as directory:
        command_line = CommandLine(directory / ".ragver")
        with command_line.serving() as serving:
            yield command_line, serving


@pytest.fixture
def ragver(server: tuple[CommandLine, Serving]) -> CommandLine:
    return server[0]


@pytest.fixture
def corpus(ragver: CommandLine) -> str:
    """An empty corpus of the test's own."""
    name = f"corpus-{next(_serial)}"
    assert 0 == ragver("corpus", "create", name).status
    return name


@pytest.fixture
def alone() -> Iterator[CommandLine]:
    """The command line on a directory that nobody has used."""
    with open_directory() as directory:
        yield CommandLine(directory / ".ragver")


def texts(ragver: CommandLine, corpus: str) -> dict[str, str]:
    """Every document's text, through the Python client."""
    from ragver.cli.connection import Connection, Place, run

    async def read(connection: Connection) -> dict[str, str]:
        client = connection.client
        return {one.key: (await client.document(corpus, one.key)).text async for one in client.each_document(corpus)}

    return run(Place(None, ragver.data_dir, "test"), read)


def history(file: Path, records: int) -> Path:
    """A recorded history in which each record changes a page, renames it, or deletes it."""
    lines: list[dict[str, Any]] = [{"name": "sample", "commits": records}]
    for number in range(records):
        ops: list[dict[str, str]] = [{"op": "put", "path": f"page-{number}.md", "text": f"# Page {number}\n\nText.\n"}]
        if number % 3 == 1:
            ops.append({"op": "rename", "from": f"page-{number}.md", "path": f"moved-{number}.md", "text": "moved"})
        if number % 3 == 2:
            ops.append({"op": "delete", "path": f"page-{number - 2}.md"})
        lines.append({"commit": f"c{number}", "time": "", "author_hash": "ada", "subject": f"no. {number}", "ops": ops})
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    return file


class TestServe:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_in_order(self, alone: CommandLine, number: signal.Signals) -> None:
        """Exit status 0, no traceback, and the directory free again, although somebody follows its feed."""
        with alone.serving() as serving:
            assert 0 == alone("corpus", "create", "c").status
            with alone.running("log", "--follow", "--json") as follower:
                assert 0 == alone("put", "a.md", stdin="text").status
                assert follower.stdout is not None
                assert 1 == json.loads(follower.stdout.readline())["epoch"]
                stopped = serving.stop(number)
                follower.wait(timeout=APPLIED_S_MAX)

        assert 0 == stopped.status
        assert ["stopping", "stopped"] == [json.loads(line)["event"] for line in stopped.err.splitlines()]
        assert DataDir(alone.data_dir).holder() is None
        assert 2 == follower.returncode

    def test_commands_find_it_by_its_data_directory(self, server: tuple[CommandLine, Serving]) -> None:
        command_line, serving = server
        found = command_line("status", "--json").json

        assert found["server"].startswith(f"{serving.url}, process {serving.process.pid}, since ")
        assert {"status": "ok", "ledger": "ok", "index": "ok"} == found["ready"]

    @pytest.mark.parametrize("command", ["serve", "migrate"])
    def test_a_second_one_is_refused_and_told_who_holds_the_directory(
        self, server: tuple[CommandLine, Serving], command: str
    ) -> None:
        command_line, serving = server
        refused = command_line.apart(command, *(["--port", 0] if command == "serve" else []))

        assert (2, "") == (refused.status, refused.out)
        assert f"is held by `ragver serve` (process {serving.process.pid}, since" in refused.err
        assert refused.err.startswith("error: ")
        assert refused.err.endswith("(data_dir_in_use)\n")

    def test_a_port_in_use_is_refused_before_any_store_is_opened(
        self, server: tuple[CommandLine, Serving], alone: CommandLine
    ) -> None:
        refused = alone.apart("serve", "--port", server[1].url.rpartition(":")[2])

        assert 2 == refused.status
        assert "cannot listen on 127.0.0.1" in refused.err
        assert not alone.data_dir.exists()

    def test_without_the_indexer_reads_are_right_and_the_index_stays_as_it_is(self, alone: CommandLine) -> None:
        with alone.serving("--no-indexer"):
            alone("corpus", "create", "c")
            alone("put", "a.md", stdin="Thirty days of leave.")

            assert 1 == len(alone("retrieve", "leave", "--json").json["hits"])
            assert (1, 0) == _head_and_applied(alone, "c")
        with alone.serving():
            deadline = time.monotonic() + APPLIED_S_MAX
            while (1, 1) != _head_and_applied(alone, "c"):
                assert time.monotonic() < deadline


class TestWithoutServer:
    def test_commands_open_the_stores_themselves(self, alone: CommandLine) -> None:
        """Each in a process of its own, one after the other."""
        assert 0 == alone.apart("corpus", "create", "handbook").status
        assert [["1", "leave.md", "1", "created", "1", "0", "0"]] == alone.apart(
            "put", "leave.md", stdin="Thirty days of leave."
        ).rows
        hits = alone.apart("retrieve", "leave", "--json").json["hits"]

        assert ["leave.md"] == [hit["document"]["key"] for hit in hits]
        assert f"stores embedded in {alone.data_dir}" == alone.apart("status", "--json").json["server"]
        assert DataDir(alone.data_dir).holder() is None

    def test_a_holder_that_serves_nothing_is_named(self, alone: CommandLine) -> None:
        with DataDir(alone.data_dir).claim("something else"):
            refused = alone("status")

        assert 2 == refused.status
        assert "is held by `something else` (process " in refused.err
        assert "serves no URL" in refused.err

    def test_there_is_nothing_to_follow(self, alone: CommandLine) -> None:
        alone("corpus", "create", "c")
        refused = alone("log", "--follow")

        assert 2 == refused.status
        assert "ragver serve" in refused.err

    def test_no_corpus_is_an_error_that_says_how_to_make_one(self, alone: CommandLine) -> None:
        refused = alone("retrieve", "anything")

        assert 2 == refused.status
        assert "ragver corpus create" in refused.err
        assert "corpus_not_found" in refused.err


class TestMigrate:
    def test_the_embedded_ledger_goes_from_nothing_to_the_newest_revision(self, alone: CommandLine) -> None:
        first, second = alone("migrate", "--json").json, alone("migrate", "--json").json

        assert first["from"] is None
        assert {"from": first["to"], "to": first["to"]} == second

    def test_a_ledger_with_a_url_is_migrated_there(self, alone: CommandLine, empty_database_url: str) -> None:
        moved = alone("migrate", RAGVER_DATABASE_URL=empty_database_url)

        assert ["from", "nothing"] == moved.rows[0]
        assert not alone.data_dir.exists()

    def test_a_ledger_that_is_away_is_an_error(self, alone: CommandLine) -> None:
        refused = alone("migrate", RAGVER_DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")

        assert 2 == refused.status
        assert refused.err.startswith("error: ")
        assert "ledger_unavailable" in refused.err


class TestCorpora:
    def test_a_corpus_is_made_listed_shown_and_deleted(self, ragver: CommandLine) -> None:
        options = ["--dimensions", 64, "--provider", "hashing", "--distance", "dot", "--retention", 3600]
        fields = ["--filterable", "team=keyword", "--filterable", "year=integer", "--verdict-ttl-ms", 500]
        made = ragver("corpus", "create", "made", *options, *fields, "--json").json

        assert ("hashing", 64, "dot") == tuple(
            made["embedding"][name] for name in ("provider", "dimensions", "distance")
        )
        assert (3600, 500) == (made["retention_s"], made["verdict_ttl_ms"])
        assert {"team": "keyword", "year": "integer"} == made["filterable"]
        assert made == ragver("corpus", "show", "made", "--json").json
        assert "made" in [row[0] for row in ragver("corpus", "list").rows]
        assert 0 == ragver("corpus", "delete", "made", "--yes").status
        assert "made" not in [row[0] for row in ragver("corpus", "list").rows]

    def test_a_name_that_is_taken_is_refused(self, ragver: CommandLine, corpus: str) -> None:
        refused = ragver("corpus", "create", corpus)

        assert 2 == refused.status
        assert refused.err.endswith("(corpus_exists)\n")

    def test_of_several_corpora_one_must_be_named(self, ragver: CommandLine, corpus: str) -> None:
        assert 0 == ragver("corpus", "create", f"{corpus}-too").status
        refused = ragver("log")

        assert 2 == refused.status
        assert f"{corpus}, {corpus}-too" in refused.err
        assert 0 == ragver("log", RAGVER_CORPUS=corpus).status


class TestRace:
    def test_a_verdict_follows_the_documents(self, ragver: CommandLine, corpus: str) -> None:
        """Passed and exit status 0 while the page lives; rejected and 1 once it is deleted."""
        ragver("put", "leave.md", "--corpus", corpus, stdin="Everyone has thirty days of leave.")
        hits = ragver("retrieve", "leave", "--corpus", corpus).rows
        token = next(row[1] for row in hits if row[0] == "snapshot")
        question = ["validate", "--corpus", corpus, "--snapshot", token]
        before = ragver(*question, "--answer", "Thirty days [1].")
        quoted = ragver(*question, "--cite", "1:thirty  days", "--json")
        ragver("delete", "leave.md", "--corpus", corpus, "--reason", "outdated")
        after = ragver(*question, "--answer", "-", stdin="Thirty days [1].")

        assert (0, "verdict\tpass") == (before.status, before.out.splitlines()[0])
        assert "pass" == quoted.json["verdict"]
        assert (1, "verdict\treject") == (after.status, after.out.splitlines()[0])
        assert "\tdeleted\tleave.md\t" in after.out

    def test_redaction_prints_what_is_left_of_the_answer(self, ragver: CommandLine, corpus: str) -> None:
        ragver("put", "a.md", "--corpus", corpus, stdin="Alpha.")
        token = ragver("retrieve", "alpha", "--corpus", corpus, "--json").json["snapshot"]
        answer = "Alpha is true [1]. Beta is made up [9]."
        redacted = ragver("validate", "--corpus", corpus, "--snapshot", token, "--policy", "redact", "--answer", answer)

        assert 0 == redacted.status
        assert "Alpha is true [1]." == redacted.out.splitlines()[-1].strip()

    def test_time_travel(self, ragver: CommandLine, corpus: str) -> None:
        for text in ("first", "second"):
            ragver("put", "a.md", "--corpus", corpus, stdin=text)
        then = ragver("retrieve", "anything", "--corpus", corpus, "--epoch", 1, "--json").json
        again = ragver("retrieve", "anything", "--corpus", corpus, "--snapshot", then["snapshot"], "--json").json

        assert ["first"] == [hit["text"] for hit in then["hits"]]
        assert then["hits"] == again["hits"]

    def test_only_who_may_read_finds(self, ragver: CommandLine, corpus: str) -> None:
        ragver("put", "pay.md", "--corpus", corpus, "--acl", "group:hr", stdin="Salaries.")
        ask = ["retrieve", "salaries", "--corpus", corpus, "--json"]

        assert [] == ragver(*ask).json["hits"]
        assert 1 == len(ragver(*ask, "--principal", "group:hr").json["hits"])


class TestPut:
    def test_everything_that_was_said_is_kept(self, ragver: CommandLine, corpus: str, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_bytes(b"one\r\ntwo\n")
        described = ["--title", "A", "--uri", "https://example.org/a", "--metadata", '{"team": "hr"}']
        why = ["--reason", "because", "--actor", "ada", "--if-version", 0]
        ragver("put", "a.md", tmp_path / "a.md", "--corpus", corpus, *described, *why)
        (entry,) = ragver("log", "--corpus", corpus, "--json").json["commits"]

        assert {"a.md": "one\r\ntwo\n"} == texts(ragver, corpus)
        assert ("because", "ada") == (entry["reason"], entry["actor"])
        (hit,) = ragver("retrieve", "one", "--corpus", corpus, "--json").json["hits"]
        assert ("A", "https://example.org/a", {"team": "hr"}) == tuple(
            hit["document"][name] for name in ("title", "uri", "metadata")
        )

    def test_a_version_that_has_passed_is_refused(self, ragver: CommandLine, corpus: str) -> None:
        ragver("put", "a.md", "--corpus", corpus, stdin="one")
        refused = ragver("put", "a.md", "--corpus", corpus, "--if-version", 0, stdin="two")

        assert 2 == refused.status
        assert refused.err.endswith("(version_conflict)\n")
        assert {"a.md": "one"} == texts(ragver, corpus)

    def test_a_delete_is_one_commit_or_none(self, ragver: CommandLine, corpus: str) -> None:
        for key in ("a", "b"):
            ragver("put", key, "--corpus", corpus, stdin=key)

        assert 2 == ragver("delete", "a", "unknown", "--corpus", corpus).status
        assert {"a": "a", "b": "b"} == texts(ragver, corpus)
        assert [["3", "a"], ["3", "b"]] == [row[:2] for row in ragver("delete", "a", "b", "--corpus", corpus).rows]


class TestImport:
    def test_a_folder_is_one_commit_and_deletes_only_when_told(self, ragver: CommandLine, tmp_path: Path) -> None:
        folder = tmp_path / "our pages"
        folder.mkdir()
        for name in ("a.md", "b.md"):
            (folder / name).write_text(f"# {name}")
        first = ragver("import", folder, "--json").json
        (folder / "a.md").unlink()
        second, third = ragver("import", folder, "--json").json, ragver("import", folder, "--prune", "--json").json

        assert ("our-pages", 1, {"created": 2}) == (first["corpus"], first["epoch"], first["documents"])
        assert {"unchanged": 1} == second["documents"]
        assert {"unchanged": 1, "deleted": 1} == third["documents"]
        assert {"b.md": "# b.md"} == texts(ragver, "our-pages")

    def test_a_history_is_replayed_commit_by_commit(self, ragver: CommandLine, tmp_path: Path) -> None:
        done = ragver("import", "--replay", history(tmp_path / "replayed.jsonl.gz", 6), "--json").json
        log = ragver("log", "--corpus", "replayed", "--json").json["commits"]

        assert (6, 6, 0) == (done["commits"], done["epoch"], done["skipped"])
        assert {"read", "split", "embed", "ledger", "transport", "other"} == set(done["seconds_by_stage"])
        assert [("ada", f"no. {number}") for number in range(6)] == [(one["actor"], one["reason"]) for one in log]
        assert ["moved-1.md", "moved-4.md", "page-2.md", "page-5.md"] == sorted(texts(ragver, "replayed"))

    def test_killed_half_way_it_goes_on_where_it_was(self, ragver: CommandLine, tmp_path: Path) -> None:
        """Every record is committed once, whatever the kill left half-way."""
        records = 200
        file = history(tmp_path / "killed.jsonl.gz", records)
        assert 0 == ragver("corpus", "create", "killed").status
        with ragver.running("import", "--replay", file) as process:
            while _head_and_applied(ragver, "killed")[0] < 5:
                assert process.poll() is None
            process.kill()
        resumed = ragver("import", "--replay", file, "--json").json
        log = ragver("log", "--corpus", "killed", "--limit", 1000, "--json").json["commits"]

        assert resumed["skipped"] >= 5
        assert resumed["commits"] >= 1
        assert records == resumed["skipped"] + resumed["commits"]
        assert [f"replay:sample:c{number}" for number in range(records)] == [one["idempotency_key"] for one in log]

    def test_once_done_there_is_nothing_left_to_do(self, ragver: CommandLine, tmp_path: Path) -> None:
        file = history(tmp_path / "twice.jsonl.gz", 3)
        ragver("import", "--replay", file)
        again = ragver("import", "--replay", file)

        assert [["corpus", "twice"], ["commits", "0, 3 were there already"]] == again.rows

    def test_an_error_names_the_commit(self, ragver: CommandLine, corpus: str, tmp_path: Path) -> None:
        """Here a rename of what is not there; what came before it stays."""
        file = history(tmp_path / "h.jsonl.gz", 2)
        ragver("import", "--replay", file, "--corpus", corpus)
        ragver("delete", "page-0.md", "--corpus", corpus)
        refused = ragver("import", "--replay", history(tmp_path / "h.jsonl.gz", 6), "--corpus", corpus)

        assert 2 == refused.status
        assert refused.err.startswith("error: commit replay:sample:c2: ")
        assert 3 == _head_and_applied(ragver, corpus)[0]

    def test_too_much_for_one_commit_is_refused_before_it_is_sent(
        self, ragver: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a.md", "b.md"):
            (tmp_path / name).write_text("text")
        large = ragver("import", tmp_path, "--corpus", "large", RAGVER_REQUEST_BYTES_MAX="100")
        monkeypatch.setattr(wire, "OPERATIONS_MAX", 1)
        many = ragver("import", tmp_path, "--corpus", "large")

        assert (2, 2) == (large.status, many.status)
        assert "raise RAGVER_REQUEST_BYTES_MAX" in large.err
        assert "has 2 operations and 1 are allowed" in many.err
        assert 0 == _head_and_applied(ragver, "large")[0]


class TestLog:
    def test_it_shows_the_newest_commits_or_those_after_an_epoch(self, ragver: CommandLine, corpus: str) -> None:
        for number in range(1, 5):
            ragver("put", "a.md", "--corpus", corpus, "--reason", f"no. {number}", stdin=str(number))
        log = ["log", "--corpus", corpus]

        assert [["3", "no. 3"], ["4", "no. 4"]] == [[row[0], row[-1]] for row in ragver(*log, "--limit", 2).rows]
        assert ["2", "3"] == [row[0] for row in ragver(*log, "--since", 1, "--limit", 2).rows]


def _head_and_applied(ragver: CommandLine, corpus: str) -> tuple[int, int]:
    found = ragver("corpus", "show", corpus, "--json").json
    return found["head"], found["applied_epoch"]


class TestUpkeep:
    def test_the_log_is_verified(self, ragver: CommandLine, corpus: str) -> None:
        ragver("put", "a.md", "--corpus", corpus, stdin="one")
        first = ragver("log", "--verify", "--corpus", corpus, "--json").json
        ragver("put", "a.md", "--corpus", corpus, stdin="two")
        good = ragver("log", "--verify", "--corpus", corpus, "--anchor", f"1:{first['head_hash']}")
        bad = ragver("log", "--verify", "--corpus", corpus, "--anchor", f"1:{'0' * 64}")

        assert (True, 1, 1) == (first["intact"], first["head"], first["verified"])
        assert (0, ["log", "intact"]) == (good.status, good.rows[0])
        assert (1, True) == (bad.status, bad.out.startswith("log\tbroken\n"))

    def test_what_has_passed_the_horizon_is_collected(self, ragver: CommandLine, corpus: str) -> None:
        assert [[corpus, "0", "0", "0", "0"]] == [row[:5] for row in ragver("gc", "--corpus", corpus).rows]

    def test_a_document_is_erased_and_the_receipt_checked(
        self, ragver: CommandLine, corpus: str, tmp_path: Path
    ) -> None:
        ragver("put", "a.md", "--corpus", corpus, stdin="one")
        asked = ragver("erase", "a.md", "--corpus", corpus, "--reason", "asked for")
        assert (2, True) == (asked.status, "--yes" in asked.err)
        erased = ragver("erase", "a.md", "--corpus", corpus, "--reason", "asked for", "--yes", "--json")
        assert (0, "complete") == (erased.status, erased.json["state"])
        receipt = tmp_path / "receipt.json"
        receipt.write_text(erased.out)
        checked = ragver("erase", "--verify", receipt, "--json")
        assert (0, True, True) == (checked.status, checked.json["genuine"], checked.json["now"]["erased"])
        receipt.write_text(erased.out.replace('"asked for"', '"another reason"'))
        forged = ragver("erase", "--verify", receipt)
        assert (1, True) == (forged.status, forged.out.startswith("receipt\tnot genuine"))
        assert 2 == ragver("erase", "never", "--corpus", corpus, "--reason", "x", "--yes").status
