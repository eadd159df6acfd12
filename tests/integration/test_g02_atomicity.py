"""G2: a commit over many documents is visible whole or not at all, to every reader, at every epoch."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import (
    DocumentExists,
    DocumentNotFound,
    FieldInvalid,
    LedgerUnavailable,
    RagverError,
    VectorInvalid,
    VersionConflict,
)
from tests.support.blocking import gate
from tests.support.child import child
from tests.support.ledger import check_chain, query
from tests.support.services import CORPUS, commit, delete, make_corpus, put, rename

pytestmark = pytest.mark.guarantee(2)

WRITES = 60
DOCUMENTS = ("left", "middle", "right")

# Reads all documents at one epoch after the other until it is told the last one; prints each reading.
READER = """
import asyncio, sys
from pathlib import Path
from tests.integration.test_g02_atomicity import reading
from tests.support.services import open_test_services

async def main(url, directory, last):
    async with open_test_services(url, Path(directory)) as services:
        print("ready", flush=True)
        head = 0
        while head < int(last):
            head, numbers = await reading(services, None)
            print(head, *numbers, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def together(number: int) -> list[wire.Operation]:
    """One commit on all documents: they are changed, renamed in a circle, or deleted and put again."""
    puts: list[wire.Operation] = [put(key, f"{key} says {number}") for key in DOCUMENTS]
    if number % 5 == 3:
        return [delete(key) for key in DOCUMENTS]
    if number % 7 == 6 and number % 5 != 4:
        circle = [("left", "aside"), ("middle", "left"), ("right", "middle"), ("aside", "right")]
        return [*(rename(key, new_key) for key, new_key in circle), *puts]
    return puts


async def reading(services: Services, epoch: int | None) -> tuple[int, set[str]]:
    """An epoch (now: the head) and the numbers that the documents show there, `-` for one that is not there."""
    at_epoch = (await services.catalog.corpus(CORPUS)).head if epoch is None else epoch
    return at_epoch, {await shown(services, key, at_epoch) for key in DOCUMENTS}


async def shown(services: Services, key: str, epoch: int) -> str:
    try:
        return (await services.catalog.document(CORPUS, key, epoch)).text.rpartition(" ")[2]
    except DocumentNotFound:
        return "-"


def expected(epoch: int) -> set[str]:
    return {"-"} if epoch == 0 or epoch % 5 == 3 else {str(epoch)}


async def write_all(services: Services) -> None:
    for number in range(1, WRITES + 1):
        assert number == (await commit(services, CORPUS, *together(number))).epoch


async def read_documents(services: Services, writing: asyncio.Task[None]) -> int:
    """Read at random epochs while the writer works; how many readings there were."""
    chance, readings = random.Random(2), 0
    while not writing.done():
        head = (await services.catalog.corpus(CORPUS)).head
        epoch, numbers = await reading(services, chance.randint(0, head))
        assert expected(epoch) == numbers
        readings += 1
    return readings


async def retrieve(services: Services, epoch: int | None = None) -> wire.RetrieveResponse:
    consistency = None if epoch is None else wire.Consistency(level="exact", epoch=epoch)
    request = wire.RetrieveRequest(query="says", k=10, consistency=consistency)
    return await services.retrieval.retrieve(CORPUS, request)


async def read_hits(services: Services, writing: asyncio.Task[None]) -> int:
    """Retrieve strongly while the writer works; how many answers there were."""
    answers = 0
    while not writing.done():
        check_hits(await retrieve(services))
        answers += 1
    return answers


def check_hits(answer: wire.RetrieveResponse) -> None:
    numbers = [hit.text.rpartition(" ")[2] for hit in answer.hits]
    whole = [] if expected(answer.epoch) == {"-"} else [str(answer.epoch)] * len(DOCUMENTS)
    assert whole == numbers, f"epoch {answer.epoch}"


async def test_g02_readers_see_commits_whole(services: Services, database_url: str, tmp_path: Path) -> None:
    """While documents are always changed together, no reader in this or another process, of documents or by
    retrieval, now or at any epoch, ever sees one changed and another not."""
    await make_corpus(services)
    with child(READER, database_url, str(tmp_path / "reader"), str(WRITES)) as reader:
        assert await asyncio.to_thread(reader.read) == "ready"
        writing = asyncio.create_task(write_all(services))
        readings = await asyncio.gather(read_documents(services, writing), read_hits(services, writing))
        await writing
        elsewhere = {0: expected(0)}
        while max(elsewhere) < WRITES:
            head, *numbers = (await asyncio.to_thread(reader.read)).split()
            elsewhere[int(head)] = set(numbers)

    assert all(expected(head) == numbers for head, numbers in elsewhere.items())
    assert min(*readings, len(elsewhere)) > 5, "the readers took turns with the writer, or the test shows nothing"
    for epoch in range(WRITES + 1):
        assert (epoch, expected(epoch)) == await reading(services, epoch)
        check_hits(await retrieve(services, epoch))


async def test_g02_anomaly_the_same_change_as_two_commits_is_seen_half(services: Services) -> None:
    """Without a commit over both documents, there is an epoch at which one is changed and the other is not."""
    await make_corpus(services)
    await commit(services, CORPUS, put("left", "left says 1"), put("right", "right says 1"))
    half = await commit(services, CORPUS, put("left", "left says 2"))
    await commit(services, CORPUS, put("right", "right says 2"))

    seen = [await shown(services, key, half.epoch) for key in ("left", "right")]
    hits = {hit.text for hit in (await retrieve(services, half.epoch)).hits}

    assert ["2", "1"] == seen
    assert {"left says 2", "right says 1"} == hits


async def test_g02_only_the_last_state_is_visible(services: Services) -> None:
    """What an operation brings and a later one of the same commit takes away is never seen."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "first"), put("a", "second"), put("b", "x"), delete("b"))
    assert ["second"] == [hit.text for hit in (await retrieve(services)).hits]
    assert "second" == (await services.catalog.document(CORPUS, "a", 1)).text
    with pytest.raises(DocumentNotFound):
        await services.catalog.document(CORPUS, "b", 1)


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (delete("nowhere"), DocumentNotFound),
        (rename("left", "right"), DocumentExists),
        (put("right", "new", if_version=7), VersionConflict),
        (put("right", "new", metadata={"year": "none"}), FieldInvalid),
        (put("right", chunks=[{"text": "new", "vector": [1.0]}]), VectorInvalid),
    ],
)
async def test_g02_a_commit_that_fails_later_leaves_nothing(
    services: Services, failing: wire.Operation, error: type[RagverError]
) -> None:
    """If any operation does not fit, none is applied, and no epoch is used up."""
    await make_corpus(services, filterable={"year": "integer"})
    await commit(services, CORPUS, put("left", "left says 1"), put("right", "right says 1"))
    before = await services.catalog.corpus(CORPUS)

    with pytest.raises(error):
        await commit(services, CORPUS, put("left", "left says 2"), put("fresh", "x"), failing)

    after = await services.catalog.corpus(CORPUS)
    assert (before.head, before.documents, before.chunks) == (after.head, after.documents, after.chunks)
    assert {"left says 1", "right says 1"} == {hit.text for hit in (await retrieve(services)).hits}
    assert before.head + 1 == (await commit(services, CORPUS, put("left", "left says 2"))).epoch


TABLES = "SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM document) + (SELECT count(*) FROM embedding) AS n"


@pytest.mark.parametrize(("table", "at_commit"), [("commit_log", False), ("embedding", False), ("document", True)])
async def test_g02_a_session_that_is_ended_in_mid_commit_leaves_nothing(
    services: Services, database_url: str, table: str, at_commit: bool
) -> None:
    """Ended with rows already written, by a restart or an administrator, a commit leaves none of them."""
    await make_corpus(services)
    await commit(services, CORPUS, put("left", "left says 1"))
    before = await query(database_url, TABLES)
    async with gate(database_url, table, at_commit=at_commit) as closed:
        doomed = asyncio.create_task(commit(services, CORPUS, put("left", "left says 2"), put("right", "says 2")))
        await closed.reached()
        await closed.terminate()
        with pytest.raises(LedgerUnavailable, match="outcome is unknown"):
            await doomed

    assert before == await query(database_url, TABLES)
    assert {"left says 1"} == {hit.text for hit in (await retrieve(services)).hits}
    assert 2 == (await commit(services, CORPUS, put("left", "left says 3"))).epoch
    assert 2 == await check_chain(database_url, CORPUS)


DOOMED = """
import asyncio, sys
from pathlib import Path
from tests.support.services import CORPUS, commit, open_test_services, put

async def main(url, directory):
    async with open_test_services(url, Path(directory)) as services:
        print("ready", flush=True)
        await commit(services, CORPUS, put("left", "says 2"), put("right", "says 2"), idempotency_key="doomed")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("table", "at_commit"), [("commit_log", False), ("document", True)])
async def test_g02_a_writer_killed_in_mid_commit_leaves_all_or_nothing(
    services: Services, database_url: str, tmp_path: Path, table: str, at_commit: bool
) -> None:
    """Nobody sees anything of it while it hangs; once PostgreSQL has settled it, it is there whole or not at all,
    and sending it again makes it whole."""
    await make_corpus(services)
    await commit(services, CORPUS, put("left", "says 1"), put("right", "says 1"))
    async with gate(database_url, table, at_commit=at_commit) as closed:
        with child(DOOMED, database_url, str(tmp_path / "doomed")) as writer:
            assert await asyncio.to_thread(writer.read) == "ready"
            await closed.reached()
            writer.kill()
        assert ["says 1", "says 1"] == [hit.text for hit in (await retrieve(services)).hits]
        await closed.open()

    request = [put("left", "says 2"), put("right", "says 2")]
    again = await commit(services, CORPUS, *request, idempotency_key="doomed")
    assert 2 == again.epoch
    assert ["says 2", "says 2"] == [hit.text for hit in (await retrieve(services)).hits]
    assert 2 == await check_chain(database_url, CORPUS)
