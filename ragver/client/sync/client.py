# Derived from ragver/client/client.py by `python -m ragver.client.derive`: change that one, not this.
"""The synchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragver.client.sync.answering import Answering
from ragver.client.sync.content import Content
from ragver.client.sync.operations import Operations

if TYPE_CHECKING:
    from ragver.client.sync.corpus import Corpus


class Client(Content, Answering, Operations):
    """The API of one server, a method for each call; ``client["policies"]`` has those of one corpus.

    The methods are in three modules: content, answering, operations.

    - Answers are models of ``ragver.wire``. Where a method takes a body of ``ragver.wire``, it takes as well what
      the body is made of: ``retrieve("policies", "How many days?", k=3)``.
    - Every failure is an ``ApiError``. A request is repeated where the failure says that this can help (see
      ``Retries``) and where twice does no harm: reads, verdicts, and commits, since each has an idempotency key.
    - `answer_s_max` bounds a call with all its repetitions.
    - `api_key` is sent with every request.
    - `transport` is any of httpx's, in place of the network.

    Use it as an context manager, or call ``close``.
    """

    def __getitem__(self, corpus: str) -> Corpus:
        """A corpus by its name, whether it exists or not; nothing is sent."""
        from ragver.client.sync.corpus import Corpus

        return Corpus(self, corpus)
