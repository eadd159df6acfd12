"""The data directory: whose it is just now, and the secret that outlives its holders."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from ragver.clock import Clock, SystemClock
from ragver.errors import DataDirInUse, SetupError

GATE_WAIT_S_MAX = 5.0
GATE_POLL_S = 0.005
SECRET_BYTES = 32


class Holder(BaseModel):
    """The process that holds a data directory."""

    pid: int
    role: str
    since: datetime
    url: str | None = None
    operator_token: str | None = Field(None, repr=False)
    """Makes requests to `url` the operator's: whoever can read the directory could open the stores themselves."""

    def __str__(self) -> str:
        serving = f", serving at {self.url}" if self.url else ""
        return f"`{self.role}` (process {self.pid}, since {self.since:%Y-%m-%d %H:%M:%S} UTC{serving})"


class DataDir:
    """One directory with everything embedded, and at most one process that holds it.

    Two locks, both released by the kernel when their process ends, however it ends:

    - ``lock`` is the claim itself, kept for as long as the holder lives;
    - ``gate`` is kept only for the moment in which somebody looks or changes something. Without it a look at
      ``lock`` would get in the way of a claim, and the record of a dead holder could pass for that of a new
      one which has not written its own yet.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = path.expanduser().resolve()
        self._clock = clock or SystemClock()
        self._held: int | None = None
        self._record = self.path / "holder.json"

    @property
    def postgres(self) -> Path:
        """Where the embedded PostgreSQL keeps its files."""
        return self.path / "postgres"

    @property
    def index(self) -> Path:
        """Where the embedded index keeps its files."""
        return self.path / "index"

    def claim(self, role: str) -> AbstractContextManager[object]:
        """Hold the directory from now until the answer is exited, ``release`` or the end of this process.

        Makes the directory if it is missing.
        Raises ``DataDirInUse``, naming the holder, if somebody else holds it, this process included.
        """
        self._make()
        with self._gate():
            lock = _locked(self.path / "lock", fcntl.LOCK_EX)
            if lock is None:
                raise self._in_use(self._recorded())
            try:
                self._write(Holder(pid=os.getpid(), role=role, since=self._clock.now()))
            except BaseException:
                os.close(lock)
                raise
            self._held = lock
        held = ExitStack()
        held.callback(self.release)
        return held

    def publish(self, url: str, operator_token: str | None = None) -> None:
        """Let others know where this holder serves, and its user how to be let in; only after ``claim``."""
        with self._gate():
            if self._held is None or (mine := self._recorded()) is None:
                raise SetupError(f"{self.path} is not held by this process, so there is nothing to publish")
            self._write(mine.model_copy(update={"url": url, "operator_token": operator_token}))

    def release(self) -> None:
        """Give the directory up; does nothing if this object does not hold it."""
        if self._held is None:
            return
        with self._gate():
            self._record.unlink(missing_ok=True)
            os.close(self._held)
            self._held = None

    def holder(self) -> Holder | None:
        """Who holds the directory at this moment; None if nobody does, whatever the dead left behind."""
        with self._failures_named():
            if not (self.path / "lock").exists():
                return None
        with self._gate():
            free = _locked(self.path / "lock", fcntl.LOCK_SH)
            if free is None:
                return self._recorded()
            os.close(free)
            return None

    def secret_key(self) -> str:
        """The secret of this directory; made on first use, and the same ever after."""
        self._make()
        file = self.path / "secret_key"
        with self._gate():
            if not file.exists():
                _write_whole(file, secrets.token_urlsafe(SECRET_BYTES))
            secret = file.read_text(encoding="ascii").strip()
        if len(secret) < SECRET_BYTES:
            raise SetupError(
                f"{file} is too short to be a secret; remove it for a new one, which voids the snapshot tokens "
                "signed so far"
            )
        return secret

    def _make(self) -> None:
        with self._failures_named():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignored = self.path / ".gitignore"
            if not ignored.exists():
                _write_whole(ignored, "*\n")

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SetupError(
                f"the data directory {self.path} cannot be used ({error.strerror}): set RAGVER_DATA_DIR to one that can"
            ) from error

    @contextmanager
    def _gate(self) -> Iterator[None]:
        with self._failures_named():
            gate = self._gate_locked()
            try:
                yield
            finally:
                os.close(gate)

    def _gate_locked(self) -> int:
        deadline = time.monotonic() + GATE_WAIT_S_MAX
        while (gate := _locked(self.path / "gate", fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                raise SetupError(f"{self.path}/gate stays locked; is a process of ragver suspended?")
            time.sleep(GATE_POLL_S)
        return gate

    def _recorded(self) -> Holder | None:
        try:
            return Holder.model_validate_json(self._record.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _write(self, holder: Holder) -> None:
        _write_whole(self._record, holder.model_dump_json())

    def _in_use(self, holder: Holder | None) -> DataDirInUse:
        return DataDirInUse(
            f"{self.path} is held by {holder or 'another process'}: use its server, stop it, or set "
            "RAGVER_DATA_DIR to another directory"
        )


def _locked(file: Path, kind: int) -> int | None:
    """An open file with the lock on it, or None if it is taken. Closing it, also by dying, gives the lock back."""
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, kind | fcntl.LOCK_NB)
    except OSError as error:
        os.close(opened)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return opened


def _write_whole(file: Path, content: str) -> None:
    """Write a file for its owner's eyes so that nobody, after a crash included, sees only part of it."""
    descriptor, name = tempfile.mkstemp(prefix=f"{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync_directory(file.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
