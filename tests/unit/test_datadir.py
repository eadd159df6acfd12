"""A data directory has one holder, whom everybody can name, and one secret."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from ragver.embedded.datadir import DataDir, Holder
from ragver.errors import DataDirInUse, SetupError
from tests.support.child import child

HOLD = """
import sys
from pathlib import Path
from ragver.embedded.datadir import DataDir
from ragver.errors import DataDirInUse

directory = DataDir(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    directory.claim("ragver serve")
except DataDirInUse:
    print("lost", flush=True)
else:
    directory.publish("http://127.0.0.1:8000")
    print("won", flush=True)
sys.stdin.read()
"""

PUBLISH_FOREVER = """
import sys
from itertools import count
from pathlib import Path
from ragver.embedded.datadir import DataDir

directory = DataDir(Path(sys.argv[1]))
directory.claim("ragver serve")
for n in count():
    directory.publish("http://" + "x" * (n * 97 % 5000))
    if n == 0:
        print("published", flush=True)
"""

LOOK_FOREVER = """
import sys
from pathlib import Path
from ragver.embedded.datadir import DataDir

directory = DataDir(Path(sys.argv[1]))
print("looking", flush=True)
while True:
    directory.holder()
"""

SECRET = """
import sys
from pathlib import Path
from ragver.embedded.datadir import DataDir

print("ready", flush=True)
sys.stdin.readline()
print(DataDir(Path(sys.argv[1])).secret_key(), flush=True)
"""


@pytest.fixture
def directory(tmp_path: Path) -> DataDir:
    return DataDir(tmp_path / "data")


def test_a_second_claim_fails_and_names_the_holder(directory: DataDir) -> None:
    """Whoever comes second learns which process is in the way, and where it serves."""
    with child(HOLD, str(directory.path)) as first:
        assert first.read() == "ready"
        first.tell()
        assert first.read() == "won"
        with pytest.raises(DataDirInUse) as refused:
            directory.claim("ragver demo")
        for part in ("ragver serve", f"process {first.pid}", "http://127.0.0.1:8000", "since 20"):
            assert part in refused.value.detail


def test_the_holder_is_known_to_others(directory: DataDir) -> None:
    """Another process reads who holds the directory and the URL it published."""
    with child(HOLD, str(directory.path)) as first:
        first.read()
        first.tell()
        first.read()
        holder = directory.holder()
        assert holder is not None
        assert (first.pid, "ragver serve", "http://127.0.0.1:8000") == (holder.pid, holder.role, holder.url)


def test_a_killed_holder_is_no_holder(directory: DataDir) -> None:
    """After kill -9 the record still lies there; it names nobody, and the next claim succeeds."""
    with child(HOLD, str(directory.path)) as first:
        first.read()
        first.tell()
        assert first.read() == "won"
        first.kill()
    assert (directory.path / "holder.json").exists()
    assert directory.holder() is None
    with directory.claim("ragver serve"):
        holder = DataDir(directory.path).holder()
    assert holder is not None
    assert (os.getpid(), None) == (holder.pid, holder.url)


def test_of_racing_claimants_exactly_one_wins(directory: DataDir) -> None:
    """However many start at once, one holds the directory and the others are told."""
    with ExitStack() as stack:
        claimants = [stack.enter_context(child(HOLD, str(directory.path))) for _ in range(5)]
        assert [claimant.read() for claimant in claimants] == ["ready"] * 5
        for claimant in claimants:
            claimant.tell()
        assert sorted(claimant.read() for claimant in claimants) == ["lost"] * 4 + ["won"]


def test_the_record_is_never_read_half_written(directory: DataDir) -> None:
    """While the holder rewrites its record over and over, every look finds a whole one."""
    with child(PUBLISH_FOREVER, str(directory.path)) as busy:
        assert busy.read() == "published"
        for _ in range(200):
            holder = directory.holder()
            assert holder is not None
            assert holder.url is not None
            assert holder.url.removeprefix("http://").strip("x") == ""


def test_looking_does_not_get_in_the_way_of_a_claim(directory: DataDir) -> None:
    """A look takes the lock for a moment; a claim at that moment succeeds all the same."""
    directory.claim("ragver serve")
    directory.release()
    with child(LOOK_FOREVER, str(directory.path)) as curious:
        assert curious.read() == "looking"
        for _ in range(200):
            with directory.claim("ragver serve"):
                pass


def test_a_released_directory_can_be_claimed_again(directory: DataDir) -> None:
    """Release gives the directory up at once; releasing twice is nothing."""
    directory.claim("ragver demo")
    directory.release()
    directory.release()
    assert directory.holder() is None
    with DataDir(directory.path).claim("ragver serve"):
        pass


def test_one_process_cannot_claim_twice(directory: DataDir) -> None:
    """A second claim from the same process is refused and leaves the first one in force."""
    with directory.claim("ragver serve"):
        with pytest.raises(DataDirInUse):
            directory.claim("ragver demo")
        holder = directory.holder()
    assert holder is not None
    assert holder.role == "ragver serve"


def test_only_the_holder_publishes(directory: DataDir) -> None:
    """A URL without a claim behind it would send others to the wrong place."""
    with directory.claim("ragver serve"), pytest.raises(SetupError):
        DataDir(directory.path).publish("http://elsewhere")


def test_looking_at_a_directory_that_is_not_there_makes_none(directory: DataDir) -> None:
    """Nobody holds what does not exist, and a look leaves no trace."""
    assert directory.holder() is None
    assert not directory.path.exists()


def test_the_secret_stays_the_same_and_is_private(directory: DataDir) -> None:
    """The secret is made once, differs between directories, and only its owner may read it."""
    secret = directory.secret_key()
    assert secret == DataDir(directory.path).secret_key()
    assert secret != DataDir(directory.path / "other").secret_key()
    assert stat.S_IMODE((directory.path / "secret_key").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_racing_for_the_first_secret_gives_everybody_the_same(directory: DataDir) -> None:
    """Two processes that both find no secret end up with one."""
    with ExitStack() as stack:
        racers = [stack.enter_context(child(SECRET, str(directory.path))) for _ in range(4)]
        for racer in racers:
            racer.read()
        for racer in racers:
            racer.tell()
        assert {directory.secret_key()} == {racer.read() for racer in racers}


def test_an_emptied_secret_is_refused(directory: DataDir) -> None:
    """Signing with an empty key would let anybody forge a snapshot token."""
    directory.secret_key()
    (directory.path / "secret_key").write_text("")
    with pytest.raises(SetupError, match="too short"):
        directory.secret_key()


def test_git_passes_over_the_directory(directory: DataDir) -> None:
    """Neither the secret nor the data ends up in somebody's repository by accident."""
    directory.claim("ragver demo")
    directory.release()
    assert (directory.path / ".gitignore").read_text() == "*\n"


def test_a_path_that_cannot_hold_a_directory_is_named(tmp_path: Path) -> None:
    """What the operating system refuses comes out as a set-up error that names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="file/data"):
        DataDir(tmp_path / "file" / "data").claim("ragver serve")


def test_a_holder_reads_well() -> None:
    """What people see names the role, the process, the time and the server."""
    holder = Holder.model_validate(
        {"pid": 7, "role": "ragver serve", "since": "2026-01-02T03:04:05Z", "url": "http://h:1"}
    )
    assert str(holder) == "`ragver serve` (process 7, since 2026-01-02 03:04:05 UTC, serving at http://h:1)"
