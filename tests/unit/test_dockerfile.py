"""The Dockerfile keeps its promises, as far as that can be seen without building it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PINNED_BASE = r"python:3\.\d+\.\d+-slim-\w+( AS \w+)?"
BUILD_TOOLS = r"\b(apt-get|apk|gcc|make|pip)\b"


class Instruction(NamedTuple):
    word: str
    rest: str


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, each beginning with its FROM."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[list[Instruction]] = []
    for line in joined.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, rest.strip()))
    return found


BUILD, FINAL = stages()


def rests(word: str, stage: list[Instruction]) -> list[str]:
    return [instruction.rest for instruction in stage if instruction.word == word]


@pytest.mark.parametrize("stage", [BUILD, FINAL], ids=["build", "final"])
def test_the_base_is_pinned_by_version(stage: list[Instruction]) -> None:
    assert all(re.fullmatch(PINNED_BASE, base) for base in rests("FROM", stage))


def test_both_stages_have_the_same_python() -> None:
    """A virtual environment leans on the interpreter that made it."""
    assert f"{FINAL[0].rest} AS build" == BUILD[0].rest


def test_every_version_that_is_installed_is_the_tested_one() -> None:
    installs = [
        command for run in rests("RUN", BUILD) for command in run.split("&&") if re.search(r"pip .*install", command)
    ]

    assert 2 == len(installs)
    assert all(" -c constraints.txt " in command for command in installs)
    assert '"${wheel}[server]"' in installs[-1]


def test_nothing_is_fetched_by_url() -> None:
    assert [] == [*rests("ADD", BUILD), *rests("ADD", FINAL)]


def test_the_final_stage_has_no_build_tools() -> None:
    """Only what was installed is copied over, and that without a pip of its own."""
    assert all(not re.search(BUILD_TOOLS, run) for run in rests("RUN", FINAL))
    assert "python -m venv --without-pip /opt/ragver" in " ".join(rests("RUN", BUILD))
    assert [
        "--from=build /opt/ragver /opt/ragver",
        "--chmod=644 deploy/healthcheck.py /opt/ragver/healthcheck.py",
    ] == rests("COPY", FINAL)


def test_it_does_not_run_as_root() -> None:
    (user,) = rests("USER", FINAL)
    words = [instruction.word for instruction in FINAL]

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :]


def test_signals_reach_the_program() -> None:
    """No shell stands between."""
    (probe,) = rests("HEALTHCHECK", FINAL)

    assert [["ragver"]] == [json.loads(rest) for rest in rests("ENTRYPOINT", FINAL)]
    assert [["serve"]] == [json.loads(rest) for rest in rests("CMD", FINAL)]
    assert ["python", "/opt/ragver/healthcheck.py"] == json.loads(probe.partition("CMD ")[2])


def test_logs_are_not_held_back() -> None:
    (environment,) = rests("ENV", FINAL)

    assert "PYTHONUNBUFFERED=1" in environment.split()


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    copied = {
        source
        for copy in [*rests("COPY", BUILD), *rests("COPY", FINAL)]
        if not copy.startswith("--from")
        for source in copy.split()[:-1]
        if not source.startswith("--")
    }

    assert "*" == rules[0]
    assert copied == {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)
