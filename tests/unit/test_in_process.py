"""The transports to an application in this process behave like the network: streams, failures, time, leaving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from ragver.client.in_process import PIECES_WAITING_MAX, Across, Application, InProcess

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def client(application: Application, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=InProcess(application), base_url="http://test", **options)


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    request = await receive()
    await send(HEAD | {"status": 207})
    await send(piece(scope["raw_path"] + b"?" + scope["query_string"] + b" " + request["body"], more=False))


async def test_a_request_arrives_as_it_was_sent() -> None:
    async with client(echo) as http:
        answer = await http.post("/a%2Fb?c=d", content=b"body")

    assert (207, b"/a%2Fb?c=d body") == (answer.status_code, answer.content)


async def test_pieces_come_while_the_answer_is_being_made() -> None:
    """httpx's own transport would wait for the end, which a feed does not have."""
    read = asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(piece(b"first"))
        await read.wait()
        await send(piece(b"second", more=False))

    async with client(slow) as http, http.stream("GET", "/") as answer:
        pieces = answer.aiter_raw()
        assert b"first" == await anext(pieces)
        read.set()
        assert [b"second"] == [one async for one in pieces]


async def test_the_application_waits_for_a_slow_reader() -> None:
    sent = 0

    async def eager(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(HEAD)
        while True:
            await send(piece(b"x"))
            sent += 1

    async with client(eager) as http, http.stream("GET", "/"):
        for _ in range(10 * PIECES_WAITING_MAX):
            await asyncio.sleep(0)

    assert sent <= PIECES_WAITING_MAX


@pytest.mark.parametrize("steps", [[], [HEAD], [HEAD, piece(b"some")]])
@pytest.mark.parametrize("failure", [None, ValueError("a defect")])
async def test_an_answer_that_breaks_off_is_a_failure(steps: list[Any], failure: Exception | None) -> None:
    """Never a short answer that looks whole."""

    async def broken(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        for step in steps:
            await send(step)
        if failure is not None:
            raise failure

    async with client(broken) as http:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await http.get("/")

    assert caught.value.__cause__ is failure


async def test_a_failure_after_a_whole_answer_changes_nothing() -> None:
    async def late(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send(piece(b"whole", more=False))
        raise ValueError("told in the application's log")

    async with client(late) as http:
        assert b"whole" == (await http.get("/")).content


async def silent(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


async def test_silence_ends_at_the_read_timeout() -> None:
    async with client(silent, timeout=0.01) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/")


async def test_whoever_leaves_ends_the_work() -> None:
    ended = asyncio.Event()

    async def working(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with client(working) as http:
        asking = asyncio.create_task(http.get("/"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    assert ended.is_set()


def test_threads_share_an_application_in_a_loop_of_its_own() -> None:
    homes = set()

    async def where(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        homes.add(threading.get_ident())
        await send(HEAD)
        for number in range(3):
            await send(piece(str(number).encode(), more=number < 2))

    answers: list[bytes] = []
    with start_blocking_portal() as portal, httpx.Client(transport=Across(portal, InProcess(where))) as http:
        threads = [threading.Thread(target=lambda: answers.append(http.get("http://test/").content)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with http.stream("GET", "http://test/") as answer:
            assert b"0" == next(answer.iter_raw())

    assert [b"012"] * 8 == answers
    assert 1 == len(homes)
    assert threading.get_ident() not in homes
