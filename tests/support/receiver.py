"""A receiver of webhooks, which checks each signature by itself and answers as the test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RECEIVED_S_MAX = 30


@dataclass(frozen=True, slots=True)
class Got:
    """An event that came."""

    event_id: str
    timestamp_s: int
    event: dict[str, Any]
    signed: bool

    @property
    def recall(self) -> tuple[int, str]:
        return self.event["data"]["epoch"], self.event["data"]["answer_id"]


class Receiver:
    """What came, in order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secret = ""
        self.got: list[Got] = []
        self.answer: Callable[[Got], int] = lambda got: 200
        """The status for an event. It runs in a thread of its own, and may take its time."""
        self._came = threading.Condition()

    async def until(self, number: int) -> list[Got]:
        """Wait for so many requests; fails if they do not come."""
        await asyncio.to_thread(self.wait, number)
        return self.got

    def wait(self, number: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.got) >= number, RECEIVED_S_MAX), f"only {len(self.got)} came"

    def take(self, headers: Any, body: bytes) -> int:
        """Note an event, and the status to answer it with."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        genuine = hmac.compare_digest(expected, headers["webhook-signature"])
        got = Got(headers["webhook-id"], int(headers["webhook-timestamp"]), json.loads(body), genuine)
        with self._came:
            self.got.append(got)
            self._came.notify_all()
        return self.answer(got)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on this machine until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = receiver.take(self.headers, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", "0")
            if 300 <= status < 400:
                self.send_header("location", receiver.url)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests print nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Senders are killed here on purpose."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/recalls")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
