"""Several `ragver serve` processes on one ledger and one index server, and signals for each of them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.server import RAGVER, START_S_MAX, STOP_S_MAX, environment
from tests.support.services import SECRET

LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the processes. Its log goes to a file: nobody has to read it for the process to go on."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return str(self.said("serving")["url"])

    def said(self, event: str) -> dict[str, Any]:
        """The first entry of this kind in the log, waited for."""
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            for line in self.log.read_text("utf-8").splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n") and (entry := json.loads(line))["event"] == event:
                    return dict(entry)
            assert self.process.poll() is None, f"the process ended: {self.log.read_text('utf-8')}"
            time.sleep(LOOK_S)
        raise TimeoutError(f"no {event} after {START_S_MAX} s: {self.log.read_text('utf-8')}")

    def pause(self) -> None:
        """SIGSTOP: from then on it does nothing, while its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT: it does what it was about to do, without knowing that time has passed."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``, and wait for the end."""
        self.process.kill()
        self.process.wait()


@contextmanager
def replica(directory: Path, database_url: str, qdrant_url: str, *options: str, **settings: str) -> Iterator[Replica]:
    """Serve at a free port until the end of the block; returns when requests are answered."""
    directory.mkdir()
    log = directory / "log"
    stores = {"database_url": database_url, "qdrant_url": qdrant_url, "secret_key": SECRET}
    told = environment(data_dir=str(directory), **(stores | settings))
    with (
        log.open("wb") as written,
        subprocess.Popen([*RAGVER, "serve", "--port", "0", *options], env=told, stderr=written) as process,
    ):
        started = Replica(process, log)
        try:
            started.said("serving")
            yield started
        finally:
            # One that is paused would not hear the other signal.
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(STOP_S_MAX)
