"""A small Qdrant server for the tests: the few REST calls of qdrant-client, over the Edge engine, with faults.

It reads requests with the client's own models of the published API, so a request that the API does not know fails.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import qdrant_edge as edge
import uvicorn
from qdrant_client import models
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ragver.index.payload import STAMP_ID

VERSION = "1.17.0"
START_S_MAX = 10.0
API_KEY = "a key that nobody may read"

_DISTANCES = {distance: getattr(edge.Distance, distance.value) for distance in models.Distance}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────


class Trouble(StrEnum):
    """What can go wrong with a request."""

    RESET = "reset"
    """The connection ends before the request is looked at."""
    DROP = "drop"
    """It is applied, and then the connection ends without an answer."""
    DELAY = "delay"
    """It is applied after the client has given up."""
    LIMIT = "limit"
    """429, without a word on when to come back."""
    LIMIT_UNTIL = "limit until"
    """429 with a Retry-After."""
    LIMIT_LONG = "limit long"
    """429 with a Retry-After of an hour."""
    KEY = "key"
    """401, quoting the key."""
    ERROR = "error"
    """500."""
    OVERLOAD = "overload"
    """503."""
    QUEUE = "queue"
    """Answered as acknowledged, and never applied."""
    LOSE = "lose"
    """Answered as completed, and not applied."""


REFUSALS = {
    Trouble.LIMIT: 429,
    Trouble.LIMIT_UNTIL: 429,
    Trouble.LIMIT_LONG: 429,
    Trouble.KEY: 401,
    Trouble.ERROR: 500,
    Trouble.OVERLOAD: 503,
}
RETRY_AFTER_S = {Trouble.LIMIT_UNTIL: 1, Trouble.LIMIT_LONG: 3_600}
WRITES = r"(PUT /collections/[^/]+/points|POST /collections/[^/]+/points/(delete|payload))$"
SEARCHES = r"POST /collections/[^/]+/points/query$"
ANYTHING = r""

Faults = Callable[[str], Trouble | None]
"""Told a method and path; says what goes wrong with the request."""


def healthy(call: str) -> Trouble | None:
    return None


def first(times: int, trouble: Trouble, calls: str = ANYTHING) -> Faults:
    """The first so many of the calls that match go wrong."""
    left = iter(range(times))

    def decide(call: str) -> Trouble | None:
        return trouble if re.match(calls, call) and next(left, None) is not None else None

    return decide


# ── the engine ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Collection:
    shard: edge.EdgeShard
    created: models.CreateCollection
    schema: dict[str, Any]


class Engine:
    """Collections on disk. Only ever used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._collections: dict[str, _Collection] = {}

    def names(self) -> list[str]:
        return list(self._collections)

    def create(self, name: str, created: models.CreateCollection) -> None:
        if name in self._collections:
            raise HTTPException(409, f"Wrong input: Collection `{name}` already exists!")
        assert isinstance(created.vectors, models.VectorParams)
        path = self._directory / name
        path.mkdir(parents=True)
        vectors = edge.EdgeVectorParams(size=created.vectors.size, distance=_DISTANCES[created.vectors.distance])
        shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors))
        self._collections[name] = _Collection(shard, created, {})

    def drop(self, name: str) -> bool:
        collection = self._collections.pop(name, None)
        if collection is None:
            return False
        collection.shard.close()
        shutil.rmtree(self._directory / name)
        return True

    def index(self, name: str, wanted: models.CreateFieldIndex) -> None:
        schema = wanted.field_schema
        kind = schema if isinstance(schema, models.PayloadSchemaType) else getattr(schema, "type")  # noqa: B009
        # Not built: that takes the engine 20 ms, and it finds the same without.
        self[name].schema[wanted.field_name] = {"data_type": kind.value, "points": 0}

    def __getitem__(self, name: str) -> _Collection:
        try:
            return self._collections[name]
        except KeyError:
            raise HTTPException(404, f"Not found: Collection `{name}` doesn't exist!") from None

    def close(self) -> None:
        for name in self.names():
            self._collections.pop(name).shard.close()


def _filter(found: models.Filter | None) -> edge.Filter | None:
    if found is None:
        return None
    assert found.min_should is None
    return edge.Filter(_conditions(found.must), _conditions(found.should), _conditions(found.must_not))


def _conditions(found: Any) -> list[Any] | None:
    if found is None:
        return None
    return [_condition(part) for part in (found if isinstance(found, list) else [found])]


def _condition(found: Any) -> Any:
    match found:
        case models.Filter():
            return _filter(found)
        case models.HasIdCondition():
            return edge.HasIdCondition(set(found.has_id))
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(found.is_empty.key)
        case models.FieldCondition(match=models.MatchValue(value=value)):
            return edge.FieldCondition(found.key, match=edge.MatchValue(value))
        case models.FieldCondition(match=models.MatchAny(any=values)):
            return edge.FieldCondition(found.key, match=edge.MatchAny(values))
        case models.FieldCondition(range=models.Range() as bounds):
            return edge.FieldCondition(found.key, range=edge.RangeFloat(**bounds.model_dump()))
        case models.FieldCondition(range=models.DatetimeRange() as bounds):
            written = bounds.model_dump(mode="json", exclude_none=True)
            return edge.FieldCondition(found.key, range=edge.RangeDateTime(**written))
        case _:
            raise HTTPException(400, f"this server knows no such condition: {found!r}")


# ── the calls ───────────────────────────────────────────────────────────────────────────────────────────────


class _Calls:
    """The REST calls, each on the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        here = "/collections/{name}"
        return [
            Route(f"{here}/exists", self.exists),
            Route(here, self.describe, methods=["GET"]),
            Route(here, self.create, methods=["PUT"]),
            Route(here, self.drop, methods=["DELETE"]),
            Route(f"{here}/index", self.index, methods=["PUT"]),
            Route(f"{here}/points", self.upsert, methods=["PUT"]),
            Route(f"{here}/points", self.retrieve, methods=["POST"]),
            Route(f"{here}/points/delete", self.delete, methods=["POST"]),
            Route(f"{here}/points/payload", self.set_payload, methods=["POST"]),
            Route(f"{here}/points/query", self.query, methods=["POST"]),
            Route(f"{here}/points/scroll", self.scroll, methods=["POST"]),
            Route(f"{here}/points/count", self.count, methods=["POST"]),
        ]

    async def exists(self, request: Request) -> Response:
        return _result({"exists": _name(request) in self._engine.names()})

    async def describe(self, request: Request) -> Response:
        collection = self._engine[_name(request)]
        params = collection.created.model_dump(mode="json", include=set(models.CollectionParams.model_fields))
        return _result({**_STATUS, "config": {**_CONFIG, "params": params}, "payload_schema": collection.schema})

    async def create(self, request: Request) -> Response:
        self._engine.create(_name(request), models.CreateCollection.model_validate_json(await request.body()))
        return _result(True)

    async def drop(self, request: Request) -> Response:
        return _result(self._engine.drop(_name(request)))

    async def index(self, request: Request) -> Response:
        self._engine.index(_name(request), models.CreateFieldIndex.model_validate_json(await request.body()))
        return _result(COMPLETED)

    async def upsert(self, request: Request) -> Response:
        wanted = models.PointsList.model_validate_json(await request.body())
        mode = wanted.update_mode or models.UpdateMode.UPSERT
        points = [edge.Point(point.id, _plain(point.vector), point.payload) for point in wanted.points]
        modes = {"insert_only": edge.UpdateMode.InsertOnly, "upsert": edge.UpdateMode.Upsert}
        return self._update(request, edge.UpdateOperation.upsert_points(points, update_mode=modes[mode.value]))

    async def delete(self, request: Request) -> Response:
        wanted = models.PointIdsList.model_validate_json(await request.body())
        return self._update(request, edge.UpdateOperation.delete_points(list(wanted.points)))

    async def set_payload(self, request: Request) -> Response:
        wanted = models.SetPayload.model_validate_json(await request.body())
        due = _filter(wanted.filter)
        assert due is not None
        return self._update(request, edge.UpdateOperation.set_payload_by_filter(due, wanted.payload))

    async def query(self, request: Request) -> Response:
        wanted = models.QueryRequest.model_validate_json(await request.body())
        assert isinstance(wanted.query, models.NearestQuery)
        assert wanted.limit is not None
        nearest = edge.Query.Nearest(_plain(wanted.query.nearest))
        hits = self._shard(request).search(edge.SearchRequest(nearest, wanted.limit, filter=_filter(wanted.filter)))
        return _result({"points": [{"id": hit.id, "version": 0, "score": hit.score} for hit in hits]})

    async def scroll(self, request: Request) -> Response:
        wanted = models.ScrollRequest.model_validate_json(await request.body())
        asked = edge.ScrollRequest(wanted.offset, wanted.limit, with_payload=True, with_vector=bool(wanted.with_vector))
        records, after = self._shard(request).scroll(asked)
        return _result({"points": [_point(record) for record in records], "next_page_offset": after})

    async def retrieve(self, request: Request) -> Response:
        wanted = models.PointRequest.model_validate_json(await request.body())
        records = self._shard(request).retrieve(list(wanted.ids), True, bool(wanted.with_vector))
        return _result([_point(record) for record in records])

    async def count(self, request: Request) -> Response:
        wanted = models.CountRequest.model_validate_json(await request.body())
        return _result({"count": self._shard(request).count(edge.CountRequest(True, _filter(wanted.filter)))})

    def _shard(self, request: Request) -> edge.EdgeShard:
        return self._engine[_name(request)].shard

    def _update(self, request: Request, operation: edge.UpdateOperation) -> Response:
        assert request.query_params["wait"] == "true"
        self._shard(request).update(operation)
        return _result(COMPLETED)


COMPLETED = {"operation_id": 1, "status": "completed"}
_STATUS = {"status": "green", "optimizer_status": "ok", "segments_count": 1}
_CONFIG = {
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
    "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1_000,
        "default_segment_number": 0,
        "flush_interval_sec": 5,
    },
}


def _name(request: Request) -> str:
    return str(request.path_params["name"])


def _plain(vector: Any) -> list[float]:
    assert isinstance(vector, list)
    return vector


def _point(record: edge.Record) -> dict[str, Any]:
    return {"id": record.id, "payload": record.payload or {}, "vector": record.vector}


def _result(result: Any) -> Response:
    return JSONResponse({"result": result, "status": "ok", "time": 0.0})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"status": {"error": error.detail}, "time": 0.0}, error.status_code)


# ── the server ──────────────────────────────────────────────────────────────────────────────────────────────


class WireServer:
    """A server in a thread of its own, on any free port of this machine, which it keeps."""

    def __init__(self, directory: Path, delay_s: float) -> None:
        self.faults: Faults = healthy
        self.calls: list[str] = []
        self.engine = Engine(directory)
        """Past all faults; only while nobody calls."""
        self.version = VERSION
        self._directory = directory
        self._delay_s = delay_s
        self._app = Starlette(
            routes=[Route("/", self._root), *_Calls(self.engine).routes()], exception_handlers={HTTPException: _refused}
        )
        # Bound but deaf, so that nobody else gets the port while the server is stopped.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._port: int = self._holder.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve; what was stored before the last stop is still there."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._serve,
                "127.0.0.1",
                self._port,
                interface="asgi3",
                lifespan="off",
                ws="none",
                http="h11",
                log_config=None,
            )
        )
        self._thread = threading.Thread(target=self._server.run, name="qdrant-wire")
        self._thread.start()
        deadline = time.monotonic() + START_S_MAX
        while not self._server.started:
            assert time.monotonic() < deadline, "the test server does not start"
            time.sleep(0.005)

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            self._thread.join()
        self._server = self._thread = None

    def forget(self) -> None:
        """Come back with an empty disk."""
        self.stop()
        for name in self.engine.names():
            self.engine.drop(name)
        self.start()

    def points(self, name: str) -> dict[int, dict[str, Any]]:
        """What a collection holds besides its stamp, past all faults; nothing if there is none."""
        if name not in self.engine.names():
            return {}
        records, _ = self.engine[name].shard.scroll(edge.ScrollRequest(None, 100_000, with_payload=True))
        return {int(record.id): record.payload or {} for record in records if record.id != STAMP_ID}

    def close(self) -> None:
        self.stop()
        self.engine.close()
        self._holder.close()

    async def _root(self, request: Request) -> Response:
        return JSONResponse({"title": "qdrant - vector search engine", "version": self.version})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = f"{scope['method']} {scope['path']}"
        self.calls.append(call)
        trouble = self.faults(call)
        if trouble is None:
            await self._app(scope, receive, send)
        elif trouble is Trouble.RESET:
            await _cut(send)
        elif trouble is Trouble.DROP:
            await self._app(scope, receive, _nowhere)
            await _cut(send)
        elif trouble is Trouble.DELAY:
            late = await _received(receive)
            await asyncio.sleep(self._delay_s)
            await self._app(scope, late, send)
        else:
            await _answer(trouble)(scope, receive, send)


def _answer(trouble: Trouble) -> Response:
    if trouble in REFUSALS:
        headers = {"Retry-After": str(RETRY_AFTER_S[trouble])} if trouble in RETRY_AFTER_S else None
        said = f"not with {API_KEY}" if trouble is Trouble.KEY else f"the test wants {trouble}"
        return JSONResponse({"status": {"error": said}}, REFUSALS[trouble], headers)
    status = "acknowledged" if trouble is Trouble.QUEUE else "completed"
    return _result({"operation_id": 1, "status": status})


async def _received(receive: Receive) -> Receive:
    """The whole request, also for one who asks after the client has gone."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    replayed = iter(messages)

    async def replay() -> MutableMapping[str, Any]:
        return next(replayed)

    return replay


async def _nowhere(message: MutableMapping[str, Any]) -> None:
    """Where an answer goes that is dropped."""


async def _cut(send: Send) -> None:
    """End the connection: an answer that has begun cannot be put right by the server, which then hangs up."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})


@contextmanager
def wire_server(directory: Path, delay_s: float = 1.0) -> Iterator[WireServer]:
    """A running server until the end of the block."""
    server = WireServer(directory, delay_s)
    server.start()
    try:
        yield server
    finally:
        server.close()


def mixed(chance: Callable[[], float], troubles: Iterable[Trouble], share: float) -> Faults:
    """Any call goes wrong with the probability `share`, in any of these ways that suit it."""
    known = list(troubles)

    def decide(call: str) -> Trouble | None:
        if chance() >= share:
            return None
        trouble = known[int(chance() * len(known))]
        return trouble if trouble not in (Trouble.QUEUE, Trouble.LOSE) or re.match(WRITES, call) else None

    return decide
