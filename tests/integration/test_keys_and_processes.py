"""Keys among real processes: who listens where, what the command line needs, and a revocation that all of them hear."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from ragver import wire
from ragver.bootstrap import open_keys
from ragver.embedded.datadir import DataDir
from ragver.settings import Settings
from tests.support.cli import CommandLine
from tests.support.server import RAGVER, START_S_MAX, Server, environment, running_server
from tests.support.services import SECRET

WAIT_S_MAX = 30.0
ASK_S = 0.02


@pytest.fixture
def command(data_dir: Path) -> CommandLine:
    return CommandLine(data_dir)


def create(database_url: str, data_dir: Path, name: str, role: str) -> wire.KeyCreated:
    """A key made straight on the ledger, as by `ragver keys create` beside no server."""

    async def made() -> wire.KeyCreated:
        settings = Settings(database_url=database_url, data_dir=data_dir)
        async with open_keys(settings, role="test") as keys:
            return await keys.create_key(wire.KeyCreate.model_validate({"name": name, "role": role}))

    return asyncio.run(made())


def serve_to_its_end(data_dir: Path, *options: str, **settings: str) -> tuple[int, str]:
    """A server that does not get to serve: its exit status, and what it says."""
    done = subprocess.run(
        [*RAGVER, "serve", "--port", "0", *options],
        env=environment(data_dir=str(data_dir), **settings),
        capture_output=True,
        text=True,
        timeout=START_S_MAX,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_server_without_keys_listens_on_loopback_only(database_url: str, tmp_path: Path) -> None:
    """Unless it is told so, or there is a key: the same command then serves, and asks for it."""
    ledger = {"database_url": database_url, "secret_key": SECRET}
    status, said = serve_to_its_end(tmp_path / "refused", "--host", "0.0.0.0", **ledger)
    assert (2, True) == (status, said.endswith("(server_unguarded)\n"))
    assert "ragver keys create NAME --role admin" in said
    assert "--allow-unauthenticated" in said

    with running_server(tmp_path / "told", "--host", "0.0.0.0", "--allow-unauthenticated", **ledger) as server:
        assert 200 == httpx.get(f"{server.url}/v1/corpora").status_code
    with running_server(tmp_path / "loopback", "--host", "localhost", **ledger) as server:
        assert 200 == httpx.get(f"{server.url}/v1/corpora").status_code

    key = create(database_url, tmp_path / "nowhere", "operator", "admin")
    with running_server(tmp_path / "guarded", "--host", "0.0.0.0", **ledger) as server:
        assert 401 == httpx.get(f"{server.url}/v1/corpora").status_code
        headers = {"Authorization": f"Bearer {key.secret}"}
        assert 200 == httpx.get(f"{server.url}/v1/corpora", headers=headers).status_code
    assert not (tmp_path / "nowhere").exists()


def test_the_command_line_beside_a_guarded_server_needs_no_key(command: CommandLine) -> None:
    """First the ledger alone, with no server; then with one, by its data directory; from elsewhere with a key."""
    admin = command("keys", "create", "operator", "--role", "admin", "--json").json
    assert [["operator", "admin", "all", "any", "good", "never"]] == [row[1:-1] for row in command("keys", "list").rows]
    with command.serving() as server:
        assert "with an API key" in server.said["access"]
        assert [] == command("corpus", "list").rows
        assert 0 == command("corpus", "create", "notes").status
        reader = command("keys", "create", "chat", "--role", "reader", "--for", "notes", "--json").json

        refused = command("corpus", "list", "--url", server.url)
        assert (2, True) == (refused.status, refused.err.endswith("(key_missing)\n"))
        by_option = command("corpus", "list", "--url", server.url, "--api-key", reader["secret"])
        by_variable = command("corpus", "list", "--url", server.url, RAGVER_API_KEY=reader["secret"])
        assert [["notes"], ["notes"]] == [ran.rows[0][:1] for ran in (by_option, by_variable)]
        forbidden = command("corpus", "delete", "notes", "--yes", "--url", server.url, RAGVER_API_KEY=reader["secret"])
        assert (2, True) == (forbidden.status, forbidden.err.endswith("(not_allowed)\n"))

        assert 0 == command("keys", "revoke", "chat").status
        assert 2 == command("corpus", "list", RAGVER_API_KEY=reader["secret"]).status, "a key that is given counts"
        _nobody_else_can_read(command.data_dir)
    assert ["good", "revoked"] == [row[5] for row in command("keys", "list").rows]
    assert admin["secret"] not in command("keys", "list", "--json").out


def _nobody_else_can_read(data_dir: Path) -> None:
    holder = data_dir / "holder.json"
    assert 0o600 == stat.S_IMODE(holder.stat().st_mode)
    token = json.loads(holder.read_text())["operator_token"]
    assert token.startswith("rgvop_")
    assert token not in repr(DataDir(data_dir).holder())


@pytest.fixture
def two_servers(database_url: str, tmp_path: Path) -> Iterator[list[Server]]:
    ledger = {"database_url": database_url, "secret_key": SECRET}
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_server(tmp_path / name, "--no-indexer", **ledger)) for name in ("one", "other")
        ]


def test_a_revocation_in_one_process_is_heard_in_the_other(
    database_url: str, tmp_path: Path, two_servers: list[Server]
) -> None:
    """At once where it was made, and before long in the other, also by a feed that is open there."""
    admin, reader = [create(database_url, tmp_path, role, role) for role in ("admin", "reader")]
    one, other = [httpx.Client(base_url=server.url, timeout=WAIT_S_MAX) for server in two_servers]
    with_admin, with_reader = [{"Authorization": f"Bearer {key.secret}"} for key in (admin, reader)]
    with one, other:
        _ask_until(200, one, with_reader)
        _ask_until(200, other, with_reader)
        assert 201 == one.post("/v1/corpora", json={"name": "notes"}, headers=with_admin).status_code
        feed = with_reader | {"Accept": "text/event-stream"}
        with other.stream("GET", "/v1/corpora/notes/commits", headers=feed) as events:
            assert 200 == events.status_code
            assert 200 == one.delete(f"/v1/keys/{reader.id}", headers=with_admin).status_code
            assert 401 == one.get("/v1/corpora", headers=with_reader).status_code
            _ask_until(401, other, with_reader)
            # Its key is gone, so the server ends it; otherwise there would be a heartbeat, and another.
            assert not any(line.startswith(":") for line in events.iter_lines())


def _ask_until(status: int, client: httpx.Client, headers: dict[str, str]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while client.get("/v1/corpora", headers=headers).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(ASK_S)
