"""The asynchronous client. The synchronous one is derived from it: after a change, `make derive`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragver.client.answering import AsyncAnswering
from ragver.client.content import AsyncContent
from ragver.client.operations import AsyncOperations

if TYPE_CHECKING:
    from ragver.client.corpus import AsyncCorpus


class AsyncClient(AsyncContent, AsyncAnswering, AsyncOperations):
    """The API of one server, a method for each call; ``client["policies"]`` has those of one corpus.

    The methods are in three modules: content, answering, operations.

    - Answers are models of ``ragver.wire``. Where a method takes a body of ``ragver.wire``, it takes as well what
      the body is made of: ``retrieve("policies", "How many days?", k=3)``.
    - Every failure is an ``ApiError``. A request is repeated where the failure says that this can help (see
      ``Retries``) and where twice does no harm: reads, verdicts, and commits, since each has an idempotency key.
    - `answer_s_max` bounds a call with all its repetitions.
    - `api_key` is sent with every request.
    - `transport` is any of httpx's, in place of the network.

    Use it as an async context manager, or call ``close``.
    """

    def __getitem__(self, corpus: str) -> AsyncCorpus:
        """A corpus by its name, whether it exists or not; nothing is sent."""
        from ragver.client.corpus import AsyncCorpus

        return AsyncCorpus(self, corpus)
