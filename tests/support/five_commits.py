"""A history of five commits that has everything: births, an edit, a rename and deaths."""

from __future__ import annotations

from ragver import wire
from ragver.bootstrap import Services
from ragver.index.port import Payload, Point
from ragver.ledger import chunks, generations
from ragver.ledger.chunks import Change
from ragver.ledger.generations import Standing
from ragver.types import ChunkId, Epoch
from tests.support.services import CORPUS, commit, delete, put, rename
from tests.support.spine import chunk, index_all, indexer_of, retrieve, texts

COMMITS: list[list[wire.Operation]] = [
    [put("a", chunks=[chunk("a1", 1), chunk("a2", 2)]), put("b", chunks=[chunk("b1", 3)])],
    [put("a", chunks=[chunk("a1", 1), chunk("a3", 4)])],
    [delete("b"), put("c", chunks=[chunk("c1", 0)])],
    [rename("c", "b")],
    [delete("a"), put("d", chunks=[chunk("d1", 5)])],
]
ALIVE = {
    0: [],
    1: ["a1", "a2", "b1"],
    2: ["a1", "b1", "a3"],
    3: ["c1", "a1", "a3"],
    4: ["c1", "a1", "a3"],
    5: ["c1", "d1"],
}
"""What is alive at each epoch, best first."""


async def history(services: Services, *, applied: int = 0) -> dict[int, list[str]]:
    """Births, an edit, a rename and deaths, with an indexer that stops after `applied` of the commits."""
    for epoch, operations in enumerate(COMMITS, 1):
        await commit(services, CORPUS, *operations)
        if epoch == applied:
            await index_all(services)
    return ALIVE


async def at_every_epoch(services: Services) -> dict[int, list[str]]:
    return {epoch: texts(await retrieve(services, epoch=epoch)) for epoch in ALIVE}


async def read_all(services: Services) -> tuple[Standing, list[Change]]:
    """What an indexer reads of the whole history, to be applied when the test says so."""
    (standing,) = await generations.all_of(services.database)
    generation = standing.generation.generation_id
    return standing, await chunks.changes(services.database, standing.corpus, generation, (Epoch(0), ChunkId(0)), 1_000)


async def points_of(services: Services) -> dict[str, Point]:
    """The points that the index holds, by the text of their chunk, as they should be."""
    standing, found = await read_all(services)
    records = await chunks.records(services.database, standing.corpus, [change.chunk_id for change in found])
    points = {}
    for change in found:
        assert change.vector is not None
        payload = Payload(change.document_id, change.born_epoch, change.died_epoch, change.touched_epoch, ["*"], {})
        points[records.by_id[change.chunk_id].text or ""] = Point(change.chunk_id, change.vector, payload)
    return points


async def index_all_of_lost(services: Services) -> None:
    """An indexer finds the collection lost when it starts, and fills a new one."""
    (standing,) = await generations.all_of(services.database)
    indexer = indexer_of(services)
    async with generations.elections(services.database) as elections:
        while await indexer._step(elections, standing):
            (standing,) = await generations.all_of(services.database)
    assert (standing.head, standing.head) == (standing.applied, standing.head)
