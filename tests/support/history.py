"""A history of commits that anybody can continue or check: commit `n` is always the same and makes epoch `n`."""

from __future__ import annotations

from ragver import wire
from ragver.bootstrap import Services
from tests.support.ledger import query
from tests.support.services import CORPUS, commit, delete, put, rename, set_acl

PAIR = ("left", "right")

# Continues the history wherever it stands, for ever, and prints each epoch when it is acknowledged.
WRITER = """
import asyncio, sys
from pathlib import Path
from tests.support import history
from tests.support.services import open_test_services

async def main(directory, url=None):
    async with open_test_services(url, Path(directory), indexing=True) as services:
        print("ready", flush=True)
        await history.go_on(services)

asyncio.run(main(*sys.argv[1:]))
"""


def operations(number: int) -> list[wire.Operation]:
    """Two documents that always change together, a short-lived one that moves, and labels that change."""
    made: list[wire.Operation] = [put(key, f"# {key}\n\nnumber {number}") for key in PAIR]
    made += [put(f"note-{number}", f"note {number}"), set_acl("left", "*" if number % 3 else "group:hr")]
    if number > 1:
        made.append(rename(f"note-{number - 1}", "moved"))
    if number > 2:
        made.insert(0, delete("moved"))
    return made


async def write(services: Services, number: int) -> wire.CommitResult:
    """Make commit `number`, under its own idempotency key."""
    return await commit(services, CORPUS, *operations(number), idempotency_key=_key(number))


async def go_on(services: Services) -> None:
    """Send the last commit again, whose answer may never have arrived, and then one after the other."""
    number = (await services.catalog.corpus(CORPUS)).head
    assert number == 0 or (await write(services, number)).replayed
    while True:
        number += 1
        assert number == (await write(services, number)).epoch
        print(number, flush=True)


async def check(services: Services) -> int:
    """Check that every epoch is the commit of its number, whole; how many there are."""
    log = await query(services.database.url, "SELECT epoch, idempotency_key FROM commit_log ORDER BY epoch")
    assert [(row["epoch"], _key(row["epoch"])) for row in log] == [tuple(row) for row in log]
    for number in range(1, len(log) + 1):
        found = (await services.catalog.documents(CORPUS, "", number, None, 10)).documents
        note = [f"note-{number}"]
        assert ["left", *(["moved"] if number > 1 else []), *note, "right"] == [document.key for document in found]
        for key in PAIR:
            assert f"# {key}\n\nnumber {number}" == (await services.catalog.document(CORPUS, key, number)).text
    return len(log)


def _key(number: int) -> str:
    return f"commit-{number}"
