"""A PostgreSQL that belongs to one data directory: made on first use, started and stopped with its holder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ragver.embedded.postmaster import Postmaster, exists, orphans, running
from ragver.embedded.programs import Programs
from ragver.errors import SetupError

START_S_MAX = 300
"""Long, since a start after a crash replays up to ``max_wal_size`` of log."""
STOP_S_MAX = 60
ORPHANS_S_MAX = 10
"""How long the processes of a dead postmaster may take to notice and end."""
POLL_S = 0.02
LOG_LINES_SHOWN = 20
SOCKET_DIR_BYTES_MAX = 85
"""The kernels' bound for a socket's path is 103 bytes (macOS) or 107 (Linux), its name included."""

SOCKET_DIR_PREFIX = "ragver-socket-"

SUPERUSER = "postgres"
PORT = 5432
SETTINGS: Mapping[str, str] = {
    # Durability is the point of a ledger; said here so that no configuration file can take it away.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Reached over a socket that only its owner may open, never over the network.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "cluster_name": "ragver",
    "max_connections": "100",
    # Modest: the machine is also the user's.
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    # A segment that is done with is removed: recycled, it would keep what was erased until it is written over.
    "wal_recycle": "off",
    # Error messages must not bring values of rows into the log file.
    "log_error_verbosity": "terse",
    # Parallel queries need more of /dev/shm than a container has by default.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """Start and stop the server of the data directory `pgdata`.

    The caller holds the lock of the directory around it: of two processes that start the same directory at
    once, one would take over the other's server. Both calls block, for seconds at the first start.

    - The server is a session of its own, so that Ctrl-C in the terminal reaches its holder alone.
    - It outlives a holder that is killed; the next ``start`` takes it over.
    - `overrides` are PostgreSQL settings that replace those of ``SETTINGS``.
    """

    def __init__(self, pgdata: Path, overrides: Mapping[str, str] | None = None) -> None:
        self._pgdata = pgdata.expanduser().resolve()
        self._settings = {**SETTINGS, **(overrides or {})}
        self._programs = Programs(self._pgdata)
        self._log = self._pgdata / "log"

    def start(self) -> str:
        """Have the server running and return its URL; ``SetupError`` with the end of its log if it will not."""
        return url(self._left_running() or self._launched())

    def stop(self) -> None:
        """Shut the server down in order and see its last process end; does nothing where none runs."""
        server = running(self._pgdata)
        if server is None:
            return
        if not (self._stopped("fast") or self._stopped("immediate")):
            raise self._failure(f"the PostgreSQL in {self._pgdata} does not stop")
        self._discard(server.socket_dir)

    def _stopped(self, mode: str) -> bool:
        # What pg_ctl says does not matter: it also fails on a server that dies before it is asked to stop.
        with suppress(subprocess.CalledProcessError):
            self._pg_ctl("stop", f"--mode={mode}", f"--timeout={STOP_S_MAX}")
        return _wait_until(lambda: not orphans(self._pgdata), ORPHANS_S_MAX)

    def _left_running(self) -> Postmaster | None:
        """The server that a killed holder left, once it answers; None without one, or if it is going down."""
        if not _wait_until(lambda: self._answers(running(self._pgdata)) is not False, START_S_MAX):
            raise self._failure(f"the PostgreSQL left running in {self._pgdata} does not become ready")
        return running(self._pgdata)

    def _answers(self, server: Postmaster | None) -> bool | None:
        """Whether the server takes connections; None if there is no server."""
        if server is None:
            return None
        try:
            self._programs.run("pg_isready", f"--host={server.socket_dir}", f"--port={PORT}")
        except subprocess.CalledProcessError:
            return False
        return True

    def _launched(self) -> Postmaster:
        self._create()
        self._clear_remains()
        sockets = self._socket_dir()
        try:
            self._pg_ctl("start", f"--timeout={START_S_MAX}", f"--log={self._log.name}", self._options(sockets))
        except BaseException as error:
            self.stop()
            self._discard(sockets)
            if isinstance(error, subprocess.CalledProcessError):
                raise self._failure("the embedded PostgreSQL does not start", error.stdout) from error
            raise
        server = running(self._pgdata)
        if server is None:
            raise self._failure("the embedded PostgreSQL stopped as soon as it had started")
        return server

    def _create(self) -> None:
        """Make the data directory whole or not at all, so that a kill half-way leaves nothing to trip over."""
        if (self._pgdata / "PG_VERSION").exists():
            return
        self._pgdata.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{self._pgdata.name}.new-"
        for abandoned in self._pgdata.parent.glob(f"{prefix}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=self._pgdata.parent))
        try:
            self._programs.hand_over(staging)
            self._programs.run("initdb", *self._initdb_arguments(), f"--pgdata={staging}")
            staging.rename(self._pgdata)
        except subprocess.CalledProcessError as error:
            raise SetupError(f"PostgreSQL's initdb failed in {staging}:\n{error.stdout}") from error
        except OSError as error:
            raise SetupError(f"{self._pgdata} cannot be made ({error}): move away what is in its place") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _initdb_arguments(self) -> list[str]:
        """The same order of texts on every machine, whatever its locale is."""
        durable = [] if self._settings["fsync"] == "on" else ["--no-sync"]
        return [
            *durable,
            f"--username={SUPERUSER}",
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]

    def _clear_remains(self) -> None:
        """Take away what a killed server left and what would keep the next one from starting."""
        self._programs.hand_over(self._pgdata)
        if not _wait_until(lambda: not orphans(self._pgdata), ORPHANS_S_MAX):
            raise SetupError(
                f"processes of a dead PostgreSQL still work in {self._pgdata}: {orphans(self._pgdata)}; end them"
            )
        if (dead := Postmaster.recorded(self._pgdata)) is not None:
            self._discard(dead.socket_dir)
            # PostgreSQL sees by itself through a record whose process is gone, but not through one whose number
            # now belongs to a stranger or to a process that nobody has reaped.
            if exists(dead.pid):
                (self._pgdata / "postmaster.pid").unlink()
        for socket in self._pgdata.glob(".s.PGSQL.*"):
            socket.unlink()
        if self._log.exists():
            self._log.replace(self._log.with_name("log.previous"))

    def _pg_ctl(self, command: str, *arguments: str) -> None:
        """Run pg_ctl inside the data directory: it hands paths to a shell, which would read `$` and quotes in them."""
        self._programs.run("pg_ctl", command, "--wait", "--silent", "--pgdata=.", *arguments, directory=self._pgdata)

    def _options(self, sockets: Path) -> str:
        settings = {**self._settings, "unix_socket_directories": str(sockets)}
        return "--options=" + " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())

    def _socket_dir(self) -> Path:
        """The data directory itself, or a private directory elsewhere where its path cannot hold a socket."""
        if fits_a_socket(self._pgdata):
            return self._pgdata
        made = Path(tempfile.mkdtemp(prefix=SOCKET_DIR_PREFIX, dir=_temporary_root()))
        self._programs.hand_over(made)
        return made

    def _discard(self, sockets: Path) -> None:
        if sockets != self._pgdata and sockets.name.startswith(SOCKET_DIR_PREFIX):
            shutil.rmtree(sockets, ignore_errors=True)

    def _failure(self, message: str, said: str = "") -> SetupError:
        return SetupError(f"{message}. {said.strip()}\nThe end of {self._log}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        if not self._log.exists():
            return "(it wrote none)"
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])


def fits_a_socket(directory: Path) -> bool:
    """Whether a socket fits here, by length and without characters that URLs or PostgreSQL's lists set apart."""
    path = str(directory)
    return len(os.fsencode(path)) <= SOCKET_DIR_BYTES_MAX and re.fullmatch(r"[\w./+-]+", path) is not None


def _temporary_root() -> Path:
    usual = Path(tempfile.gettempdir())
    return usual if fits_a_socket(usual / f"{SOCKET_DIR_PREFIX}12345678") else Path("/tmp")


def url(server: Postmaster) -> str:
    """Names the port too, since clients would otherwise take it from PGPORT."""
    return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(server.socket_dir))}&port={PORT}"


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
