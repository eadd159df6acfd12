"""gRPC in front of the small REST server of the tests, so that the adapter's other protocol is exercised too.

qdrant-client has the conversions in both directions, and its REST methods take what gRPC brings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc as transport
from qdrant_client import AsyncQdrantClient, grpc
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_field_type_to_payload_schema
from qdrant_client.http.exceptions import UnexpectedResponse

CODES = {400: transport.StatusCode.INVALID_ARGUMENT, 404: transport.StatusCode.NOT_FOUND}

T = TypeVar("T")


async def _answered(context: Any, answer: Awaitable[T]) -> T:
    try:
        return await answer
    except UnexpectedResponse as error:
        code = CODES.get(error.status_code or 0, transport.StatusCode.INTERNAL)
        await context.abort(code, error.content.decode())
        raise AssertionError("abort raises") from error


class _Gateway:
    """The calls of all three services that the adapter makes, handed on to the REST server."""

    def __init__(self, rest: AsyncQdrantClient) -> None:
        self._rest = rest

    async def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
        return RestToGrpc.convert_health_check_reply(await self._rest.info())

    async def CollectionExists(self, request: Any, context: Any) -> Any:  # noqa: N802
        there = await self._rest.collection_exists(request.collection_name)
        return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=there))

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Both services have a call of this name."""
        return await (self._points if isinstance(request, grpc.GetPoints) else self._collection)(request, context)

    async def _points(self, request: Any, context: Any) -> Any:
        wanted = [GrpcToRest.convert_point_id(one) for one in request.ids]
        answer = self._rest.retrieve(request.collection_name, wanted, with_vectors=request.with_vectors.enable)
        records = await _answered(context, answer)
        return grpc.GetResponse(result=[RestToGrpc.convert_record(record) for record in records])

    async def _collection(self, request: Any, context: Any) -> Any:
        found = await _answered(context, self._rest.get_collection(request.collection_name))
        found.optimizer_status = GrpcToRest.convert_optimizer_status(grpc.OptimizerStatus(ok=True))
        return grpc.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(found))

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = self._rest.create_collection(
            request.collection_name,
            vectors_config=GrpcToRest.convert_vectors_config(request.vectors_config),
            replication_factor=request.replication_factor,
            write_consistency_factor=request.write_consistency_factor,
            hnsw_config=request.hnsw_config,
        )
        return grpc.CollectionOperationResponse(result=await _answered(context, answer))

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        if isinstance(request, grpc.DeleteCollection):
            dropped = await _answered(context, self._rest.delete_collection(request.collection_name))
            return grpc.CollectionOperationResponse(result=dropped)
        return await self._updated(
            context, request, lambda **how: self._rest.delete(points_selector=request.points, **how)
        )

    async def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        mode = GrpcToRest.convert_update_mode(request.update_mode)
        points = list(request.points)
        return await self._updated(
            context, request, lambda **how: self._rest.upsert(points=points, update_mode=mode, **how)
        )

    async def SetPayload(self, request: Any, context: Any) -> Any:  # noqa: N802
        payload = GrpcToRest.convert_payload(request.payload)
        selected = request.points_selector.filter
        return await self._updated(
            context, request, lambda **how: self._rest.set_payload(payload=payload, points=selected, **how)
        )

    async def CreateFieldIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        schema: Any = (
            request.field_index_params
            if request.HasField("field_index_params")
            else grpc_field_type_to_payload_schema(request.field_type)
        )
        return await self._updated(
            context,
            request,
            lambda **how: self._rest.create_payload_index(field_name=request.field_name, field_schema=schema, **how),
        )

    async def Query(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert not request.with_payload.enable
        assert not request.with_vectors.enable
        answer = self._rest.query_points(
            request.collection_name,
            query=GrpcToRest.convert_query(request.query),
            query_filter=request.filter,
            limit=request.limit,
        )
        hits = (await _answered(context, answer)).points
        return grpc.QueryResponse(result=[RestToGrpc.convert_scored_point(hit) for hit in hits])

    async def Scroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = self._rest.scroll(
            request.collection_name,
            limit=request.limit,
            offset=request.offset if request.HasField("offset") else None,
            with_vectors=request.with_vectors.enable,
        )
        records, _ = await _answered(context, answer)
        return grpc.ScrollResponse(result=[RestToGrpc.convert_record(record) for record in records])

    async def Count(self, request: Any, context: Any) -> Any:  # noqa: N802
        concerned = request.filter if request.HasField("filter") else None
        found = await _answered(context, self._rest.count(request.collection_name, count_filter=concerned))
        return grpc.CountResponse(result=RestToGrpc.convert_count_result(found))

    async def _updated(self, context: Any, request: Any, update: Callable[..., Awaitable[Any]]) -> Any:
        assert request.wait
        result = await _answered(context, update(collection_name=request.collection_name, wait=True))
        return grpc.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))


@asynccontextmanager
async def grpc_gateway(rest_url: str) -> AsyncIterator[int]:
    """A gRPC server in this loop, in front of the REST server; its port."""
    rest = AsyncQdrantClient(url=rest_url, check_compatibility=False)
    server = transport.aio.server()
    gateway = _Gateway(rest)
    grpc.add_QdrantServicer_to_server(_only(gateway, grpc.QdrantServicer), server)
    grpc.add_CollectionsServicer_to_server(_only(gateway, grpc.CollectionsServicer), server)
    grpc.add_PointsServicer_to_server(_only(gateway, grpc.PointsServicer), server)
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
        await rest.close()


def _only(gateway: _Gateway, service: type) -> Any:
    """One service out of the gateway; what it does not have is not implemented, as the generated class says."""
    calls = {name: getattr(gateway, name) for name in vars(service) if hasattr(gateway, name) and name[0].isupper()}
    return type(service.__name__, (service,), {name: staticmethod(call) for name, call in calls.items()})()
