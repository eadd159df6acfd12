"""A model behind OpenAI's chat completions: any service that speaks them, or a small stand-in where there is none."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import httpx

from ragver.client.sync.events import data_of
from ragver.errors import RagverError

SILENCE_S_MAX: Final = 60.0
"""How long the model may think before its next word."""
BODY_BYTES_MAX: Final = 4 * 2**20
PASSAGES_SAID: Final = 2
"""How many passages the stand-in makes its answer of."""
WORD_S: Final = 0.05
_PASSAGE = re.compile(r"^\[(\d+)\] [^\n]*\n(.+?)(?=\n\n\[\d+\] |\Z)", re.MULTILINE | re.DOTALL)
_SENTENCE = re.compile(r"[A-Z][^.!?\n]+(?=[.!?])")
_WORD = re.compile(r"\w{3,}")

Message = Mapping[str, str]


class ModelUnavailable(RagverError):
    """The model's service refused, or answered with something else."""

    code, status, title = "model_unavailable", 502, "The model did not answer"


@dataclass(frozen=True, slots=True)
class Model:
    """Where a model is, and how it is called there."""

    base_url: str
    name: str
    api_key: str | None = None

    def stream(self, messages: list[Message]) -> Iterator[str]:
        """What it answers, in pieces as they come. Raises ``ModelUnavailable``, or what httpx raises."""
        headers = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        body = {"model": self.name, "messages": messages, "stream": True}
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=SILENCE_S_MAX) as response:
            if not response.is_success:
                response.read()
                raise ModelUnavailable(f"{url} answered {response.status_code}: {response.text[:300]}")
            for data in data_of(response.iter_bytes()):
                if data == b"[DONE]":
                    return
                for choice in json.loads(data)["choices"]:
                    yield choice["delta"].get("content") or ""


@contextmanager
def stand_in(before_word: Callable[[int], None] | None = None, *, word_s: float = WORD_S) -> Iterator[Model]:
    """A model for the length of the block that says a sentence of each of the best passages, and cites it.

    It is a server like others of its kind, on this machine; it writes a word every `word_s` seconds, and calls
    `before_word` with each word's number, from 0.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    server.RequestHandlerClass = type("Answering", (_Answering,), {"word_s": word_s, "before_word": (before_word,)})
    thread = Thread(target=server.serve_forever, name="stand-in model", daemon=True)
    thread.start()
    try:
        yield Model(f"http://127.0.0.1:{server.server_port}/v1", "stand-in")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answering(BaseHTTPRequestHandler):
    word_s: float
    before_word: tuple[Callable[[int], None] | None]
    """In a tuple, or it would become a method."""

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length", "0")), BODY_BYTES_MAX)
        messages = json.loads(self.rfile.read(length))["messages"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number, word in enumerate(re.findall(r"\S+\s*", _said(messages))):
            if self.before_word[0] is not None:
                self.before_word[0](number)
            time.sleep(self.word_s)
            self._event(json.dumps({"choices": [{"index": 0, "delta": {"content": word}}]}))
        self._event("[DONE]")

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not on the user's terminal."""


def _said(messages: list[Message]) -> str:
    told = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    asked = {word.lower() for word in _WORD.findall(messages[-1]["content"])}
    claims = [f"{sentence} [{ref}]." for ref, text in _PASSAGE.findall(told) if (sentence := _nearest(text, asked))]
    return " ".join(claims[:PASSAGES_SAID]) or "The pages say nothing about that."


def _nearest(text: str, asked: set[str]) -> str:
    """The sentence with the most words of the question; nothing if there is no sentence."""
    found = _SENTENCE.findall(text)
    return max(found, key=lambda one: len(asked & {word.lower() for word in _WORD.findall(one)}), default="")
