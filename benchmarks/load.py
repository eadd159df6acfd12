"""A small HTTP/1.1 load generator: many kept-alive connections, prepared requests, nothing else.

General clients spend more time on a request than the servers measured here do, and would measure themselves. The load
comes from a process of its own (`apart`): the two cores are for it and for the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Literal

from benchmarks.measure import latency

HOST = "127.0.0.1"
API_KEY = "RAGVER_API_KEY"
HEADER_END = b"\r\n\r\n"
Kind = Literal["closed", "open"]


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of requests showed. Latencies of an open loop count from when a request was due."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failures: int


def prepared(port: int, path: str, body: bytes, api_key: str | None) -> bytes:
    """A POST as bytes."""
    authorization = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n{authorization}\r\n"
    )
    return head.encode() + body


async def apart(
    kind: Kind,
    port: int,
    path: str,
    bodies: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    rate_per_s: float = 0.0,
    api_key: str | None = None,
) -> Load:
    """Send these bodies (each one line) in turn, from another process; `rate_per_s` is for the open loop."""
    command = [sys.executable, "-m", "benchmarks.load", kind, str(port), path]
    process = await asyncio.create_subprocess_exec(
        *command,
        *(str(number) for number in (connections, seconds, rate_per_s)),
        env=os.environ | ({} if api_key is None else {API_KEY: api_key}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(b"\n".join(bodies))
    return Load(**json.loads(output))


async def _closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Each connection sends its next request as soon as it has the last answer: what the server can carry."""
    started = time.perf_counter()
    end = started + seconds
    latencies: list[float] = []
    failures = 0
    following = cycle(requests)

    async def client() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(HOST, port)
        while (sent := time.perf_counter()) < end:
            failures += not await _exchange(reader, writer, next(following))
            latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return _load(latencies, failures, time.perf_counter() - started)


async def _open_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float, rate_per_s: float) -> Load:
    """Requests fall due at a fixed rate whatever the server does: what its users feel."""
    started = time.perf_counter()
    due: asyncio.Queue[float | None] = asyncio.Queue()
    latencies: list[float] = []
    failures = 0
    following = cycle(requests)

    async def client() -> None:
        nonlocal failures
        reader, writer = await asyncio.open_connection(HOST, port)
        while (scheduled := await due.get()) is not None:
            failures += not await _exchange(reader, writer, next(following))
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


def _load(latencies_s: list[float], failures: int, elapsed_s: float) -> Load:
    taken = latency([seconds * 1000 for seconds in latencies_s])
    return Load(len(latencies_s) / elapsed_s, taken.p50_ms, taken.p99_ms, failures)


async def _main(kind: str, port: int, path: str, connections: int, seconds: float, rate_per_s: float) -> None:
    requests = [prepared(port, path, body, os.environ.get(API_KEY)) for body in sys.stdin.buffer.read().split(b"\n")]
    if kind == "closed":
        result = await _closed_loop(port, requests, connections, seconds)
    else:
        result = await _open_loop(port, requests, connections, seconds, rate_per_s)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    _kind, _port, _path, _connections, _seconds, _rate = sys.argv[1:]
    asyncio.run(_main(_kind, int(_port), _path, int(_connections), float(_seconds), float(_rate)))
