"""Commits and strong reads that never stop, each read held against what was acknowledged before it began."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ragver import wire
from ragver.bootstrap import Services
from tests.support.ledger import check_chain
from tests.support.services import commit, delete, put
from tests.support.spine import retrieve

SEED = 20_240_611
GOES_ON_S_MAX = 60.0
DELETED_SHARE = 0.2
EDITED_SHARE = 0.3


class Traffic:
    """A task for each writer and reader; any of them that fails ends the block with its error."""

    def __init__(self, corpus: str, writers: Sequence[Services], readers: Sequence[Services]) -> None:
        self.commits = 0
        self.reads = 0
        self._corpus = corpus
        self._texts: dict[str, str] = {}
        """What is acknowledged to live, by key."""
        self._moving: set[str] = set()
        """Keys that a commit under way is about."""
        self._gone: set[str] = set()
        """Texts that are acknowledged to be gone."""
        print(f"traffic seed {SEED}")
        self._random = random.Random(SEED)
        self._writers, self._readers = writers, readers
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number, services in enumerate(self._writers):
            self._tasks.append(asyncio.create_task(self._write(services, number)))
        for services in self._readers:
            self._tasks.append(asyncio.create_task(self._read(services)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._check_tasks()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def goes_on(self, reads: int) -> None:
        """Return after so many more reads, and at least one commit."""
        until_reads, until_commits = self.reads + reads, self.commits + 1
        async with asyncio.timeout(GOES_ON_S_MAX):
            while self.reads < until_reads or self.commits < until_commits:
                self._check_tasks()
                await asyncio.sleep(0.01)

    async def check_all(self, services: Services) -> None:
        """Check that the corpus holds what was acknowledged and can be found, and nothing more, but for what was under
        way at the end."""
        await check_chain(services.database.url, self._corpus)
        for key in self._moving:
            self._texts.pop(key, None)
        documents = await services.catalog.documents(self._corpus, "word", None, None, 1_000)
        assert self._texts.keys() == {document.key for document in documents.documents} - self._moving
        for key, text in self._texts.items():
            hits = (await retrieve(services, query=text, k=1)).hits
            assert [text] == [hit.text for hit in hits], key

    def _check_tasks(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _write(self, services: Services, number: int) -> None:
        serial = 0
        while True:
            serial += 1
            mine = sorted(key for key in self._texts if key.startswith(f"word{number}-"))
            drawn = self._random.random()
            if len(mine) > 3 and drawn < DELETED_SHARE:
                key = self._random.choice(mine)
                await self._change(services, key, delete(key), None)
            else:
                edits = bool(mine) and drawn < DELETED_SHARE + EDITED_SHARE
                key = self._random.choice(mine) if edits else f"word{number}-{serial}"
                text = f"word{number}x{serial}"
                await self._change(services, key, put(key, text), text)

    async def _change(self, services: Services, key: str, operation: wire.Operation, text: str | None) -> None:
        self._moving.add(key)
        await commit(services, self._corpus, operation)
        before = self._texts.pop(key, None)
        if before is not None:
            self._gone.add(before)
        if text is not None:
            self._texts[key] = text
        self._moving.discard(key)
        self.commits += 1

    async def _read(self, services: Services) -> None:
        while True:
            settled = sorted(self._texts.keys() - self._moving)
            if not settled:
                await asyncio.sleep(0.005)
                continue
            key = self._random.choice(settled)
            text, gone = self._texts[key], set(self._gone)
            answer = await retrieve(services, query=text, k=3)
            found = [hit.text for hit in answer.hits]
            changed = key in self._moving or self._texts.get(key) != text
            assert changed or found[:1] == [text], f"{key} was acknowledged as {text}, and read was {found}"
            assert gone.isdisjoint(found), f"read was {found}, of which some was gone before"
            self.reads += 1
