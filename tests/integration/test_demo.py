"""The demo as a newcomer runs it: it tells the race, and cleans up behind itself however it ends."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ragver.demo import ending
from tests.support.postgres import open_directory
from tests.support.server import RAGVER, environment, running_server

END_S_MAX = 60.0
INTERRUPTED = 130
OPENING = "There is no language model in the box"
WRITING = "The model begins to write."


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that is the demo's only place for temporary files, and the current one."""
    with open_directory() as directory:
        yield directory


def started(place: Path, *options: str) -> subprocess.Popen[str]:
    """A demo whose user has stores elsewhere, which it must not look for."""
    elsewhere = environment(database_url="postgresql://nobody@127.0.0.1:1/none", data_dir=str(place / "mine"))
    return subprocess.Popen(
        [*RAGVER, "demo", *options],
        cwd=place,
        env=elsewhere | {"TMPDIR": str(place), "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(place: Path) -> tuple[list[str], list[int]]:
    """The files in the directory, and the processes that work there."""
    return sorted(path.name for path in place.iterdir()), [pid for pid in psutil.pids() if works_below(pid, place)]


def works_below(pid: int, place: Path) -> bool:
    try:
        return Path(psutil.Process(pid).cwd()).is_relative_to(place)
    except psutil.Error:
        return False


def read_until(line: str, demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    assert any(shown.startswith(line) for shown in demo.stdout), f"the demo ended before it said {line!r}"


def test_the_demo_shows_what_goes_wrong_and_what_ragver_does_about_it(place: Path) -> None:
    """The figures at the end are counted, not written beforehand: the pages themselves bear them out."""
    shown, said = started(place, "--fast").communicate(timeout=END_S_MAX)

    assert "" == said
    assert 3 == shown.count("reject at epoch ")
    assert ["deleted", "superseded", "forbidden", "superseded"] == re.findall(
        r"\[1\] (deleted|superseded|forbidden)", shown
    )
    assert re.search(r"Policy redact would leave\s+“File the receipts in the expenses tool within 30 days", shown)
    assert "people/compensation-bands.md is not among them" in " ".join(shown.split())
    assert re.search(r"^ *35  commits, 3 of them while", shown, re.MULTILINE)
    assert re.search(r"^ *5 of 5  answers that the plain pipeline released", shown, re.MULTILINE)
    assert re.search(r"^ *0 of 5  of those that ragver let through; 3 other drafts", shown, re.MULTILINE)


def test_the_demo_ends_well_leaves_nothing_behind_and_prints_plainly_into_a_pipe(place: Path) -> None:
    """Neither a process nor a directory, its user's own data directory included; no escapes, boxes or long lines."""
    demo = started(place, "--fast")
    shown, _ = demo.communicate(timeout=END_S_MAX)
    story = shown.partition("== Now by hand")[0]

    assert 0 == demo.returncode
    assert ([], []) == left_behind(place)
    assert not set("\x1b\r╭│─━") & set(shown)
    assert all(len(line) <= 80 for line in story.splitlines())


@pytest.mark.parametrize("moment", [OPENING, WRITING])
def test_an_interrupted_demo_leaves_nothing_behind(moment: str, place: Path) -> None:
    """While the stores are being opened as well as in the middle of the story."""
    demo = started(place)
    read_until(moment, demo)
    demo.send_signal(signal.SIGINT)
    shown, said = demo.communicate(timeout=END_S_MAX)

    assert "error: interrupted\n" == said
    assert INTERRUPTED == demo.returncode
    assert "What happened" not in shown
    assert ([], []) == left_behind(place)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands that the demo prints need curl")
def test_the_commands_at_the_end_work_as_printed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are printed the way the demo was called; the citation of the page that they delete is refused."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["./bin/ragver", "demo"])
    program = ending.program()
    (place / "bin").mkdir()
    (place / program).write_text(f'#!/bin/sh\nexec {shlex.join(RAGVER)} "$@"\n')
    (place / program).chmod(0o755)
    script = "\n".join([*ending.retrieving(program, ending.pages()), *ending.validating(program)])
    with running_server(place / ".ragver") as server:
        command = ["bash", "-euc", script.replace(ending.URL, server.url)]
        done = subprocess.run(command, cwd=place, env=environment(), stdout=subprocess.PIPE, text=True, check=True)

    *_, last = done.stdout.splitlines()
    verdict = json.loads(last)
    assert "reject" == verdict["verdict"]
    assert ["deleted"] == [citation["status"] for citation in verdict["citations"]]
    assert ["bin/ragver serve"] == ending.serving(program)
