"""A small HTTP/1.1 load generator: many kept-alive connections, one prepared request, nothing else.

General clients spend more time on a request than the servers measured here do, and would measure themselves.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of requests showed. Latencies of an open loop count from when a request was due."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failures: int


def prepared(host: str, port: int, path: str, body: bytes) -> bytes:
    """A POST as bytes."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
    )
    return head.encode() + body


async def closed_loop(host: str, port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Each connection sends its next request as soon as it has the last answer: what the server can carry."""
    started = time.perf_counter()
    end = started + seconds
    latencies: list[float] = []
    failures = 0

    async def client() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(host, port)
        while (sent := time.perf_counter()) < end:
            failures += not await _exchange(reader, writer, request)
            latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return _load(latencies, failures, time.perf_counter() - started)


async def open_loop(host: str, port: int, request: bytes, connections: int, rate_per_s: float, seconds: float) -> Load:
    """Requests fall due at a fixed rate whatever the server does: what its users feel."""
    started = time.perf_counter()
    due: asyncio.Queue[float | None] = asyncio.Queue()
    latencies: list[float] = []
    failures = 0

    async def client() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(host, port)
        while (scheduled := await due.get()) is not None:
            failures += not await _exchange(reader, writer, request)
            latencies.append(time.perf_counter() - scheduled)
        writer.close()

    clients = [asyncio.create_task(client()) for _ in range(connections)]
    for number in range(int(rate_per_s * seconds)):
        scheduled = started + number / rate_per_s
        await asyncio.sleep(max(0.0, scheduled - time.perf_counter()))
        due.put_nowait(scheduled)
    for _ in clients:
        due.put_nowait(None)
    await asyncio.gather(*clients)
    return _load(latencies, failures, time.perf_counter() - started)


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bool:
    writer.write(request)
    head = await reader.readuntil(HEADER_END)
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return head.startswith(b"HTTP/1.1 200")


def _load(latencies: list[float], failures: int, elapsed: float) -> Load:
    ordered = sorted(latencies)
    return Load(
        requests_per_s=len(ordered) / elapsed,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
        failures=failures,
    )
