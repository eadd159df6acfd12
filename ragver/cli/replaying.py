"""Sends the commits of a source to a corpus, and keeps count of what that brought and what it took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ragver import wire
from ragver.cli.sources import Source, SourceCommit
from ragver.client import ApiError, AsyncClient
from ragver.errors import RequestTooLarge

JSON_OVERHEAD_BYTES = 256
"""What an operation takes in the request beside its text, at most some such."""


@dataclass(slots=True)
class Tally:
    """What an import has done so far."""

    commits: int = 0
    skipped: int = 0
    """Commits that an earlier run had made."""
    documents: Counter[str] = field(default_factory=Counter)
    """Changes of documents by their status."""
    chunks_added: int = 0
    chunks_kept: int = 0
    chunks_removed: int = 0
    epoch: int | None = None
    started: float = field(default_factory=time.perf_counter)
    finished: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage: `read` here, the others as the server says."""
    waited_s: float = 0.0
    """Seconds between sending commits and having their answers."""

    @property
    def elapsed_s(self) -> float:
        return (self.finished or time.perf_counter()) - self.started

    @property
    def done(self) -> int:
        return self.commits + self.skipped

    def finish(self) -> None:
        """Stop the clock."""
        self.finished = time.perf_counter()

    def add(self, result: wire.CommitResult) -> None:
        """Count a commit."""
        self.commits += 1
        self.epoch = result.epoch
        for change in result.documents:
            self.documents[change.status.value] += 1
            self.chunks_added += change.chunks_added
            self.chunks_kept += change.chunks_kept
            self.chunks_removed += change.chunks_removed

    def timings(self) -> dict[str, float]:
        """Where the seconds went: reading, the server's stages, the way there and back, the rest of this process."""
        server = {stage: seconds for stage, seconds in self.stages.items() if stage != "read"}
        read = self.stages.get("read", 0.0)
        transport = self.waited_s - sum(server.values())
        return {"read": read, **server, "transport": transport, "other": self.elapsed_s - read - self.waited_s}


async def replay(
    client: AsyncClient,
    corpus: str,
    source: Source,
    tally: Tally,
    *,
    prune: bool,
    request_bytes_max: int,
    progressed: Callable[[], None],
) -> None:
    """Make the commits of a source that the corpus does not have yet, one after the other.

    With `prune`, a commit also deletes the documents that it does not name.
    """
    known = await _known_keys(client, corpus)
    for commit in _timed(source.commits(), tally):
        if commit.key is not None and commit.key in known:
            tally.skipped += 1
        else:
            operations = commit.operations + (await _missing(client, corpus, commit) if prune else [])
            _check_size(commit, operations, request_bytes_max)
            await _send(client, corpus, commit, operations, tally)
        progressed()


async def ensure_corpus(client: AsyncClient, name: str) -> bool:
    """Have a corpus of that name; whether it had to be made."""
    try:
        await client.corpus(name)
    except ApiError as error:
        if error.code != "corpus_not_found":
            raise
        await client.create_corpus(wire.CorpusCreate(name=name))
        return True
    return False


async def _send(
    client: AsyncClient, corpus: str, commit: SourceCommit, operations: list[wire.Operation], tally: Tally
) -> None:
    sent = time.perf_counter()
    try:
        result = await client.commit(
            corpus,
            operations,
            reason=commit.reason,
            actor=commit.actor,
            idempotency_key=commit.key,
            stages=tally.stages,
        )
    except ApiError as error:
        raise ApiError(error.code, error.status, error.retryable, f"{_named(commit)}: {error.detail}") from error
    tally.waited_s += time.perf_counter() - sent
    tally.add(result)


def _timed(commits: Iterator[SourceCommit], tally: Tally) -> Iterator[SourceCommit]:
    while True:
        started = time.perf_counter()
        commit = next(commits, None)
        tally.stages["read"] = tally.stages.get("read", 0.0) + time.perf_counter() - started
        if commit is None:
            return
        yield commit


async def _known_keys(client: AsyncClient, corpus: str) -> set[str]:
    return {entry.idempotency_key async for entry in client.each_commit(corpus) if entry.idempotency_key is not None}


async def _missing(client: AsyncClient, corpus: str, commit: SourceCommit) -> list[wire.Operation]:
    named = {operation.key for operation in commit.operations}
    return [
        wire.Delete(op="delete", key=document.key)
        async for document in client.each_document(corpus)
        if document.key not in named
    ]


def _check_size(commit: SourceCommit, operations: list[wire.Operation], request_bytes_max: int) -> None:
    """Refuse here what the server would refuse after it had been sent."""
    if len(operations) > wire.OPERATIONS_MAX:
        raise RequestTooLarge(
            f"{_named(commit)} has {len(operations):,} operations and {wire.OPERATIONS_MAX:,} are allowed; "
            "import it in parts"
        )
    size = sum(
        JSON_OVERHEAD_BYTES + len(operation.text.encode())
        for operation in operations
        if isinstance(operation, wire.Put) and operation.text is not None
    )
    if size > request_bytes_max:
        raise RequestTooLarge(
            f"{_named(commit)} has {size:,} bytes and a request may have {request_bytes_max:,}; import it in parts, "
            "or raise RAGVER_REQUEST_BYTES_MAX for the server and here"
        )


def _named(commit: SourceCommit) -> str:
    return "the import" if commit.key is None else f"commit {commit.key}"
