"""Builds the HNSW graph of a shard in a process of its own: the engine would hold the interpreter lock for all of it.

The child runs this file as a script, on a copy of the shard that nobody else opens. It is the last to be served
with CPU time, and on Linux it ends with its parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

NICENESS = 19
FILL_POINTS = 1_000
"""Points copied at a time."""
COMPLAINT_CHARS_MAX = 2_000
PR_SET_PDEATHSIG = 1
SIGKILL = 9


class BuildFailed(Exception):
    """The graph could not be built."""


class BuildCancelled(Exception):
    """The graph is not wanted any more."""


class Build:
    """The building of one shard's graph. It may be cancelled from any thread, before it begins too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source: Path | None = None
        """Where the points come from, if the shard in the directory is to be filled first."""
        self._starting = Lock()
        self._child: subprocess.Popen[str] | None = None
        self._cancelled = False

    def run(self) -> None:
        """Return when the shard in the directory has its graph, on the disk; else ``BuildFailed``."""
        with self._starting:
            self.check()
            source = [] if self.source is None else [str(self.source)]
            command = [sys.executable, "-P", __file__, str(self.directory), str(os.getpid()), *source]
            quiet = subprocess.DEVNULL
            self._child = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True)
        _, complaint = self._child.communicate()
        self.check()
        if self._child.returncode != 0:
            raise BuildFailed(f"exit status {self._child.returncode}: {complaint[-COMPLAINT_CHARS_MAX:]}")

    def cancel(self) -> None:
        """When this returns, nothing writes to the directory any more."""
        with self._starting:
            self._cancelled = True
            if self._child is not None:
                self._child.kill()
                self._child.wait()

    def check(self) -> None:
        """Raise if it was cancelled."""
        if self._cancelled:
            raise BuildCancelled


def sync_tree(directory: Path) -> None:
    """Make a directory with all that is in it safe from a power cut."""
    for path in [*directory.rglob("*"), directory]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _build(directory: Path, source: Path | None) -> None:
    import qdrant_edge as edge

    shard = edge.EdgeShard.load(str(directory))
    # What is only copied gets a graph if it had one.
    if source is None or _filled(shard, edge.EdgeShard.load(str(source))):
        shard.optimize()
    shard.flush()
    shard.close()
    sync_tree(directory)


def _filled(shard: Any, source: Any) -> bool:
    """Insert all points of the source; whether it has a graph."""
    import qdrant_edge as edge

    start = None
    while True:
        request = edge.ScrollRequest(start, FILL_POINTS, with_payload=True, with_vector=True)
        records, start = source.scroll(request)
        rows = [edge.Point(record.id, record.vector or [], record.payload or {}) for record in records]
        if rows:
            shard.update(edge.UpdateOperation.upsert_points(rows))
        if start is None:
            break
    has_graph = source.info().indexed_vectors_count > 0
    source.close()
    return bool(has_graph)


if __name__ == "__main__":
    _end_with(int(sys.argv[2]))
    os.nice(NICENESS)
    _build(Path(sys.argv[1]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
