"""`ragver index` builds, cuts over, goes back and retires, and can be run again at any point."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.support.cli import CommandLine
from tests.support.postgres import open_directory

_serial = count(1)


@pytest.fixture(scope="module")
def ragver() -> Iterator[CommandLine]:
    """The command line on a directory with a server."""
    with open_directory() as directory:
        command_line = CommandLine(directory / ".ragver")
        with command_line.serving():
            yield command_line


@pytest.fixture
def corpus(ragver: CommandLine) -> str:
    """A corpus of the test's own with one document."""
    name = f"corpus-{next(_serial)}"
    assert 0 == ragver("corpus", "create", name).status
    assert 0 == ragver("put", "a.md", "-", "--corpus", name, stdin="Everyone has 30 days of leave.").status
    return name


def states(ragver: CommandLine, corpus: str) -> dict[str, str]:
    told = ragver("index", "status", "--corpus", corpus, "--json").json
    return {one["id"]: one["state"] for one in told["generations"]}


def dimensions(ragver: CommandLine, corpus: str) -> Any:
    return ragver("corpus", "show", corpus, "--json").json["embedding"]["dimensions"]


def test_a_migration_and_its_rollback(ragver: CommandLine, corpus: str) -> None:
    """Each command waits until it is done, and says what came of it."""
    migrate = ("index", "migrate", "--corpus", corpus, "--provider", "hashing", "--dimensions", 64, "--json")
    made = ragver(*migrate).json
    new, former = made["generation"]["id"], made["former"]
    assert {former: "standby", new: "serving"} == states(ragver, corpus)
    assert 64 == dimensions(ragver, corpus)
    assert new == ragver(*migrate).json["id"], "run again, it finds all done"
    assert ["a.md"] == [
        hit["document"]["key"] for hit in ragver("retrieve", "leave", "--corpus", corpus, "--json").json["hits"]
    ]

    back = ragver("index", "migrate", "--rollback", "--corpus", corpus)
    assert 0 == back.status
    assert f"generation\t{former}, serving" in back.out
    assert f"ragver index retire {new}" in back.out
    assert {former: "serving", new: "standby"} == states(ragver, corpus)

    assert 0 == ragver("index", "retire", "--yes", "--corpus", corpus).status
    assert {former: "serving"} == states(ragver, corpus)


def test_a_rebuild_can_stop_before_its_cut_over(ragver: CommandLine, corpus: str) -> None:
    """Prepared at one time, it serves at another."""
    prepared = ragver("index", "rebuild", "--prepare", "--corpus", corpus, "--json").json
    assert ("building", 1) == (prepared["state"], prepared["verified_epoch"])
    done = ragver("index", "rebuild", "--corpus", corpus, "--json").json
    assert prepared["id"] == done["generation"]["id"]
    rows = ragver("index", "status", "--corpus", corpus).rows
    assert [["standby", "1/1", "1/1"], ["serving", "1/1", "1/1"]] == [[row[1], row[3], row[4]] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("migrate",), 2, "say what to change to"),
        (("migrate", "--model", "x"), 2, "provider"),
        (("migrate", "--embedding", "{"), 2, "is no JSON"),
        (("migrate", "--rollback", "--provider", "hashing"), 2, "it takes no embedding"),
        (("migrate", "--rollback"), 2, "no generation that is standby"),
        (("migrate", "--embedding", '{"provider": "external", "dimensions": 3}'), 2, "make another corpus"),
        (("migrate", "--provider", "openai"), 2, "needs a `model`"),
        (("retire",), 2, "--yes"),
        (("retire", "--yes"), 2, "no generation that is building or standby"),
        (("retire", "--yes", "1000"), 2, "no index generation 1000"),
    ],
)
def test_what_cannot_be_done_is_said(
    ragver: CommandLine, corpus: str, arguments: tuple[str, ...], status: int, told: str
) -> None:
    """With exit status 2, and nothing begun."""
    done = ragver("index", *arguments, "--corpus", corpus)
    assert status == done.status
    assert told in " ".join(done.err.replace("│", " ").split())
    assert ["serving"] == list(states(ragver, corpus).values())
