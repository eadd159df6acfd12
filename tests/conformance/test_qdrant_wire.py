"""The server adapter keeps the port's promises over HTTP, on a small server that speaks Qdrant's REST.

And what only a server can do: be too old, hold another collection, refuse, and lose answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ragver.errors import IndexUnavailable, IndexUnsupported, SettingsInvalid
from ragver.index import retrying
from ragver.index.port import Collection, Index
from ragver.index.qdrant import QdrantIndex
from ragver.index.qdrant_options import Connection, Options
from ragver.settings import Settings
from ragver.testing.comparison_suite import ComparisonConformance
from ragver.testing.index_suite import a_collection, a_point, a_search, a_vector, found
from ragver.types import Distance, FieldType
from tests.support.qdrant_wire import API_KEY, SEARCHES, VERSION, Trouble, WireServer, first, healthy, wire_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WireServer]:
    with wire_server(tmp_path_factory.mktemp("wire")) as server:
        yield server


class TestQdrantWire(ComparisonConformance):
    @pytest.fixture
    def open_index(self, server: WireServer) -> Callable[[], Index]:
        return lambda: QdrantIndex.connect(Connection(server.url), Options())


@pytest.fixture
async def index(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QdrantIndex]:
    monkeypatch.setattr(retrying, "PAUSE_S_FIRST", 0.005)
    index = QdrantIndex.connect(Connection(server.url), Options())
    yield index
    await index.close()
    server.faults, server.version = healthy, VERSION


@pytest.fixture
async def collection(index: QdrantIndex) -> Collection:
    collection = a_collection()
    await index.ensure(collection)
    return collection


# versions


@pytest.mark.parametrize("version", ["1.16.3", "0.11.0", "something else"])
async def test_a_server_that_is_too_old_is_refused_at_the_start(
    index: QdrantIndex, server: WireServer, version: str
) -> None:
    """It would pass over the insert-only mode, and late upserts would bring the dead back."""
    server.version = version

    with pytest.raises(IndexUnsupported, match=version):
        await index.check_server()


async def test_a_server_that_comes_back_older_is_not_written_to(
    index: QdrantIndex, server: WireServer, collection: Collection
) -> None:
    server.stop()
    with pytest.raises(IndexUnavailable, match="cannot be reached"):
        await index.ping()
    server.version = "1.16.3"
    server.start()

    with pytest.raises(IndexUnavailable, match=r"1\.16\.3; upgrade it to 1\.17"):
        await index.upsert(collection, [a_point(1)])

    assert server.points(collection.name) == {}


@pytest.mark.parametrize("version", ["1.17.0", "1.20.2-dev", "2.0.0"])
async def test_a_newer_server_is_taken(index: QdrantIndex, server: WireServer, version: str) -> None:
    server.version = version

    await index.check_server()
    await index.ping()


async def test_a_start_does_not_need_the_server(index: QdrantIndex, server: WireServer) -> None:
    server.stop()
    try:
        with capture_logs() as logs:
            await index.check_server()
    finally:
        server.start()

    assert ["index_unreachable"] == [entry["event"] for entry in logs]


# collections


@pytest.mark.parametrize("other", [{"dimensions": 9}, {"distance": Distance.DOT}])
async def test_a_collection_for_other_vectors_is_refused_with_what_to_do(
    index: QdrantIndex, collection: Collection, other: dict[str, object]
) -> None:
    with pytest.raises(IndexUnavailable, match="remove it from the Qdrant server to have it rebuilt"):
        await index.ensure(replace(collection, **other))  # type: ignore[arg-type]


async def test_payload_indexes_that_are_missing_or_of_another_type_are_made(
    index: QdrantIndex, server: WireServer, collection: Collection
) -> None:
    """An interrupted creation leaves a collection without them."""
    schema = server.engine[collection.name].schema
    complete = dict(schema)
    del schema["restricted"]
    schema["acl"] = {"data_type": "text", "points": 0}

    assert not await index.ensure(collection)

    assert complete == schema
    assert {"acl", "restricted", "born_epoch", "died_epoch", "touched_epoch", "meta.team", "meta.year"} <= set(schema)


async def test_a_creation_whose_answer_is_lost_is_a_creation(index: QdrantIndex, server: WireServer) -> None:
    server.faults = first(1, Trouble.DROP, r"PUT /collections/[^/]+$")

    assert await index.ensure(a_collection())


async def test_a_collection_whose_replicas_may_lag_is_refused(index: QdrantIndex, server: WireServer) -> None:
    collection = a_collection()
    await index.ensure(collection)
    server.engine[collection.name].created.replication_factor = 3

    with pytest.raises(IndexUnavailable, match="Set its write_consistency_factor to 3"):
        await index.ensure(collection)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        (Options(replication_factor=3), True),
        (Options(replication_factor=3, write_consistency_factor=2), False),
        (Options(replication_factor=3, write_consistency_factor=2, read_consistency="majority"), True),
        (Options(replication_factor=3, write_consistency_factor=2, read_consistency="quorum"), False),
        (Options(replication_factor=3, write_consistency_factor=2, read_consistency="all"), False),
        (Options(replication_factor=3, write_consistency_factor=2, read_consistency=2), False),
        (Options(replication_factor=4, write_consistency_factor=2, read_consistency="majority"), False),
    ],
)
async def test_reads_must_see_what_was_applied_on_enough_replicas(
    server: WireServer, options: Options, fits: bool
) -> None:
    if fits:
        await QdrantIndex.connect(Connection(server.url), options).close()
    else:
        with pytest.raises(SettingsInvalid, match="RAGVER_QDRANT_WRITE_CONSISTENCY_FACTOR"):
            QdrantIndex.connect(Connection(server.url), options)


# requests


@pytest.mark.parametrize(
    ("trouble", "message", "attempts"),
    [
        (Trouble.ERROR, "answered 500", retrying.ATTEMPTS_MAX),
        (Trouble.OVERLOAD, "answered 503", retrying.ATTEMPTS_MAX),
        (Trouble.LIMIT, "answered 429", retrying.ATTEMPTS_MAX),
        (Trouble.LIMIT_LONG, "is asked for too much", 1),
        (Trouble.RESET, "cannot be reached", retrying.ATTEMPTS_MAX),
        (Trouble.KEY, "check RAGVER_QDRANT_API_KEY", 1),
    ],
)
async def test_only_what_may_pass_is_tried_again(
    index: QdrantIndex, server: WireServer, collection: Collection, trouble: Trouble, message: str, attempts: int
) -> None:
    server.faults = first(100, trouble, SEARCHES)
    before = len(server.calls)

    with pytest.raises(IndexUnavailable, match=message) as refused:
        await index.search(collection, a_search())

    assert attempts == len(server.calls) - before
    assert API_KEY not in refused.value.detail


async def test_a_fault_that_passes_is_not_seen(index: QdrantIndex, server: WireServer, collection: Collection) -> None:
    await index.upsert(collection, [a_point(1)])
    server.faults = first(retrying.ATTEMPTS_MAX - 1, Trouble.OVERLOAD)

    assert found(await index.search(collection, a_search())) == {1}


async def test_a_retry_waits_as_long_as_the_server_asks() -> None:
    waits: list[float] = []
    failures = [retrying.Failure("busy", passing=True, wait_s=7.0), retrying.Failure("busy", passing=True)]

    async def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "answer"

    async def sleep(pause_s: float) -> None:
        waits.append(pause_s)

    assert await retrying.retried(attempt, sleep) == "answer"
    assert waits[0] == 7.0
    assert 0.0 <= waits[1] <= retrying.PAUSE_S_MAX


async def test_large_vectors_go_in_smaller_requests(index: QdrantIndex, server: WireServer) -> None:
    collection = a_collection(dimensions=4_096, filterable={"team": FieldType.KEYWORD})
    await index.ensure(collection)
    points = [replace(a_point(number), vector=a_vector(number, 4_096)) for number in range(1, 101)]
    before = len(server.calls)

    await index.upsert(collection, points)

    assert len(server.points(collection.name)) == 100
    upserts = [call for call in server.calls[before:] if call == f"PUT /collections/{collection.name}/points"]
    assert len(upserts) == 3


def test_a_url_of_something_else_is_a_matter_of_settings() -> None:
    with pytest.raises(SettingsInvalid, match="RAGVER_QDRANT_URL"):
        QdrantIndex.connect(Connection("ftp://127.0.0.1"), Options())


def test_a_key_that_is_sent_in_the_clear_is_remarked_upon() -> None:
    with capture_logs() as logs:
        QdrantIndex.connect(Connection("http://127.0.0.1:1", API_KEY), Options())
        QdrantIndex.connect(Connection("https://127.0.0.1:1", API_KEY), Options())

    assert ["qdrant_key_unencrypted"] == [entry["event"] for entry in logs]
    assert API_KEY not in str(logs)


@pytest.mark.parametrize("grpc", [False, True])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_a_matter_of_settings(
    tmp_path: Path, content: str | None, grpc: bool
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(SettingsInvalid, match="RAGVER_QDRANT_CA_FILE"):
        QdrantIndex.connect(Connection("https://127.0.0.1:1", ca_file=file, grpc=grpc), Options())


@pytest.mark.parametrize(("written", "expected"), [("2", 2), ("majority", "majority"), (None, None)])
def test_read_consistency_is_a_number_or_a_name(
    monkeypatch: pytest.MonkeyPatch, written: str | None, expected: object
) -> None:
    monkeypatch.delenv("RAGVER_QDRANT_READ_CONSISTENCY", raising=False)
    if written is not None:
        monkeypatch.setenv("RAGVER_QDRANT_READ_CONSISTENCY", written)

    assert expected == Settings().qdrant_read_consistency
