"""What the command line shows and refuses before it has anything to do with a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ragver import __version__
from ragver.cli.app import ORDER, app

HEAVY = ("sqlalchemy", "asyncpg", "alembic", "fastapi", "starlette", "uvicorn", "qdrant_client", "qdrant_edge", "numpy")
"""What takes long to import and is of no use to whoever only reads the help."""


def ragver(*arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    done = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", **(environment or {})}).invoke(app, arguments, input=stdin)
    return done.exit_code, done.stdout, done.stderr


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom ragver.cli import main\nsys.argv = ['ragver', '--help']\n"
        f"try: main()\nfinally: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "[]" == done.stderr.strip()
    assert "retrieve" in done.stdout


def test_every_command_is_listed() -> None:
    """The order is written down apart from the registration; a command left out of it would not be seen."""
    _, shown, _ = ragver("--help")

    registered = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert sorted(ORDER) == sorted(map(str, registered))
    assert list(ORDER) == [name for name in ORDER if f"│ {name} " in shown]


@pytest.mark.parametrize("command", [*ORDER, "corpus create", "corpus list", "corpus show", "corpus delete"])
def test_every_command_explains_itself_in_80_columns(command: str) -> None:
    status, shown, _ = ragver(*command.split(), "--help")

    assert 0 == status
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "…" not in shown.replace("KEY…", "")


def test_the_version_is_told() -> None:
    assert (0, f"ragver {__version__}\n", "") == ragver("--version")


@pytest.mark.parametrize(
    "command",
    [
        "nonsense",
        "put",
        "retrieve",
        "retrieve question --level sometimes",
        "retrieve question -k 0",
        "retrieve question --filter [",
        "retrieve question --filter 3",
        "validate --snapshot x --cite nonsense",
        "corpus create c --filterable year",
        "corpus create c --filterable year=number",
        "corpus create c --dimensions 64",
        "corpus delete c",
        "import",
        "import . --replay x",
        "import --git . --prune",
        "serve --port 70000",
    ],
)
def test_wrong_usage_ends_with_status_2_and_touches_nothing(command: str, tmp_path: Path) -> None:
    status, shown, said = ragver(*command.split(), environment={"RAGVER_DATA_DIR": str(tmp_path / "data")})

    assert (2, "") == (status, shown)
    assert "Error" in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        ("corpus create !", "name: ", "invalid_request"),
        ("corpus create c --provider magic", "embedding.provider: ", "invalid_request"),
        ("retrieve question --level strong --epoch 3", "level strong takes no `epoch`", "invalid_request"),
        ("retrieve question --level exact", "level exact needs", "invalid_request"),
        ("retrieve question --as-of 2024-01-01T00:00:00", "`as_of` needs a time zone", "invalid_request"),
        ("validate --snapshot x", "give `citations`, `answer`", "invalid_request"),
        ("put a nowhere.md", "nowhere.md: No such file or directory", "file_error"),
        ("import nowhere", "nowhere is no folder", "invalid_request"),
        ("import --replay nowhere.jsonl", "nowhere.jsonl: No such file or directory", "file_error"),
        ("status --url ftp://somewhere", "--url takes an HTTP address", "invalid_request"),
        ("status --url http://127.0.0.1:9", "the server at http://127.0.0.1:9 cannot be reached", "server_unreachable"),
        ("status --url 127.0.0.1:9", "the server at http://127.0.0.1:9 cannot be reached", "server_unreachable"),
        ("serve --host nowhere.invalid", "cannot listen on nowhere.invalid", "settings_invalid"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_its_code(command: str, message: str, code: str, tmp_path: Path) -> None:
    environment = {"RAGVER_DATA_DIR": str(tmp_path / "data")}
    status, shown, said = ragver(*command.split(), environment=environment)

    assert (2, "") == (status, shown)
    assert said.startswith("error: ")
    assert message in said
    assert said.endswith(f"({code})\n")
    assert said.count("\n") == 1


def test_a_setting_that_is_none_is_named() -> None:
    status, _, said = ragver("status", environment={"RAGVER_PORT": "many"})

    assert 2 == status
    assert said.startswith("error: RAGVER_PORT: ")
    assert "settings_invalid" in said


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes("Müsli".encode("latin-1"))
    status, _, said = ragver("put", "a", str(tmp_path / "latin.md"))

    assert 2 == status
    assert "latin.md is no UTF-8 text (byte 1)" in said
