"""G11: the same idempotency key with the same request is applied once and answers the same."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ragver import wire
from ragver.bootstrap import Services
from ragver.errors import DocumentNotFound, IdempotencyKeyReused
from ragver.ledger import commits
from tests.support.child import child
from tests.support.ledger import check_chain
from tests.support.services import CORPUS, commit, delete, make_corpus, open_test_services, put, rename

pytestmark = pytest.mark.guarantee(11)

PROCESSES = 3
TASKS = 8

# Many tasks send the same requests under the same keys, one round for each line of input.
SENDER = """
import asyncio, sys
from pathlib import Path
from tests.support.services import CORPUS, commit, open_test_services, put

async def main(url, directory, tasks):
    async with open_test_services(url, Path(directory)) as services:
        print("ready", flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            request = put("a", f"text {line}")
            answers = await asyncio.gather(
                *(commit(services, CORPUS, request, idempotency_key=line) for _ in range(int(tasks)))
            )
            print("[" + ",".join(answer.model_dump_json() for answer in answers) + "]", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def but_replayed(answer: wire.CommitResult) -> dict[str, Any]:
    return answer.model_dump(exclude={"replayed"})


async def test_g11_a_repeated_request_is_applied_once(services: Services) -> None:
    """The second answer is the first one, and says that it is."""
    await make_corpus(services)
    first, second = [await commit(services, CORPUS, put("a", "x"), idempotency_key="k", actor="ada") for _ in range(2)]
    assert (False, True) == (first.replayed, second.replayed)
    assert but_replayed(first) == but_replayed(second)
    assert 1 == (await services.catalog.corpus(CORPUS)).head


async def test_g11_many_tasks_and_processes_at_once(database_url: str, tmp_path: Path) -> None:
    """However many send it at the same moment, one applies it and all get its answer."""
    async with open_test_services(database_url, tmp_path / "own") as services:
        await make_corpus(services)
    with ExitStack() as stack:
        senders = [
            stack.enter_context(child(SENDER, database_url, str(tmp_path / str(number)), str(TASKS)))
            for number in range(PROCESSES)
        ]
        for sender in senders:
            assert await asyncio.to_thread(sender.read) == "ready"
        for epoch in range(1, 6):
            for sender in senders:
                sender.tell(f"key-{epoch}")
            lines = [await asyncio.to_thread(sender.read) for sender in senders]
            answers = [wire.CommitResult.model_validate(answer) for line in lines for answer in json.loads(line)]
            assert PROCESSES * TASKS == len(answers)
            assert [False] == [answer.replayed for answer in answers if not answer.replayed]
            assert all(but_replayed(answers[0]) == but_replayed(answer) for answer in answers)
            assert epoch == answers[0].epoch
    assert 5 == await check_chain(database_url, CORPUS)


@pytest.mark.parametrize("other", [[put("a", "y")], [put("a", "x", title="t")], [put("a", "x"), put("b", "x")], []])
async def test_g11_the_key_of_another_request_is_refused(services: Services, other: list[wire.Operation]) -> None:
    """A key stands for one request; nothing is written for another one."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "x"), idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused, match="epoch 1"):
        await commit(services, CORPUS, *other, idempotency_key="k")
    assert 1 == (await services.catalog.corpus(CORPUS)).head


async def test_g11_keys_belong_to_their_corpus(services: Services) -> None:
    """The same key in another corpus is another key."""
    for name in ("one", "other"):
        await make_corpus(services, name)
        assert not (await commit(services, name, put("a", "x"), idempotency_key="k")).replayed


@pytest.mark.parametrize(
    "operations",
    [[delete("a")], [delete("a", if_version=1)], [rename("a", "b")], [put("a", "y", if_version=1)]],
)
async def test_g11_a_replay_is_answered_where_it_no_longer_fits(
    services: Services, operations: list[wire.Operation]
) -> None:
    """What the request itself changed is not held against its repetition."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "x"))
    first = await commit(services, CORPUS, *operations, idempotency_key="k")
    again = await commit(services, CORPUS, *operations, idempotency_key="k")
    assert (False, True) == (first.replayed, again.replayed)
    assert but_replayed(first) == but_replayed(again)


@pytest.mark.parametrize("read", ["find", "read_before"])
async def test_g11_a_replay_overtaken_between_its_reads_is_answered(
    services: Services, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """The twin of a request commits while this one is reading, and deletes what it needs."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "x"))
    original, twins = getattr(commits, read), []

    async def read_and_be_overtaken(*arguments: Any, **more: Any) -> Any:
        found = await original(*arguments, **more)
        monkeypatch.setattr(commits, read, original)
        twins.append(await commit(services, CORPUS, delete("a"), idempotency_key="k"))
        return found

    monkeypatch.setattr(commits, read, read_and_be_overtaken)
    answer = await commit(services, CORPUS, delete("a"), idempotency_key="k")

    assert answer.replayed
    assert but_replayed(twins[0]) == but_replayed(answer)


async def test_g11_a_request_that_failed_uses_up_no_key(services: Services) -> None:
    """A refused request wrote nothing, so its key is still free."""
    await make_corpus(services)
    with pytest.raises(DocumentNotFound):
        await commit(services, CORPUS, delete("a"), idempotency_key="k")
    assert 1 == (await commit(services, CORPUS, put("a", "x"), idempotency_key="k")).epoch


async def test_g11_a_key_survives_a_restart(database_url: str, tmp_path: Path) -> None:
    """The key is in the ledger, not in the process."""
    async with open_test_services(database_url, tmp_path) as services:
        await make_corpus(services)
        await commit(services, CORPUS, put("a", "x"), idempotency_key="k")
    async with open_test_services(database_url, tmp_path) as services:
        assert (await commit(services, CORPUS, put("a", "x"), idempotency_key="k")).replayed


async def test_g11_anomaly_without_a_key_a_repeated_request_is_applied_twice(services: Services) -> None:
    """Who repeats a request without a key undoes what happened in between."""
    await make_corpus(services)
    await commit(services, CORPUS, put("a", "mine"))
    await commit(services, CORPUS, put("a", "theirs"))
    repeated = await commit(services, CORPUS, put("a", "mine"))
    assert (False, 3) == (repeated.replayed, repeated.epoch)
    assert "mine" == (await services.catalog.document(CORPUS, "a", None)).text
