"""Who serves a PostgreSQL data directory right now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragver.embedded.programs import REMEDY
from ragver.errors import NotInstalled

try:
    import psutil
except ImportError as error:
    raise NotInstalled(REMEDY) from error


@dataclass(frozen=True)
class Postmaster:
    """What ``postmaster.pid`` says, whether or not it is still true."""

    pid: int
    socket_dir: Path

    @classmethod
    def recorded(cls, pgdata: Path) -> Postmaster | None:
        """The record, or None where there is none or only the beginning of one."""
        try:
            lines = (pgdata / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 8:
            return None
        return cls(pid=int(lines[0]), socket_dir=Path(lines[4]))


def running(pgdata: Path) -> Postmaster | None:
    """The server of this directory, if the process in its record is one and not a stranger with its number."""
    record = Postmaster.recorded(pgdata)
    return record if record is not None and works_in(record.pid, pgdata) else None


def orphans(pgdata: Path) -> list[int]:
    """Processes of this directory's server, also those that outlive a killed postmaster for a moment."""
    return [pid for pid in psutil.pids() if works_in(pid, pgdata)]


def exists(pid: int) -> bool:
    """Whether the number belongs to any process, one that nobody has reaped included."""
    return bool(psutil.pid_exists(pid))


def works_in(pid: int, pgdata: Path) -> bool:
    """Whether a living process is PostgreSQL's: all of them, and nobody else, work in the data directory."""
    try:
        process = psutil.Process(pid)
        return process.name().startswith("postgres") and Path(process.cwd()) == pgdata
    except psutil.Error:
        return False
