"""What a corpus holds: corpora, commits and documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from ragver import wire
from ragver.client.bodies import PAGE, built, conditional, idempotent, parsed, path_of, server_timing, whole
from ragver.client.errors import ApiError
from ragver.client.events import data_of
from ragver.client.transport import AsyncTransport
from ragver.types import FieldType

DELETE_ROUNDS_MAX = 5
"""How often a delete is made again because others delete a part of it meanwhile."""

FieldTypeName = Literal["keyword", "integer", "float", "bool", "datetime"]


class AsyncContent(AsyncTransport):
    """The calls that read and change what there is, and follow the changes."""

    # ── corpora ──────────────────────────────────────────────────────────────────────────────────────────────

    async def create_corpus(
        self,
        corpus: str | wire.CorpusCreate,
        *,
        embedding: wire.Embedding | None = None,
        retention_s: int | None = None,
        verdict_ttl_ms: int | None = None,
        filterable: Mapping[str, FieldType | FieldTypeName] | None = None,
        exist_ok: bool = False,
    ) -> wire.Corpus:
        """Make an empty corpus; with `exist_ok`, one of that name that is there already will do as it is."""
        body = whole(
            wire.CorpusCreate,
            corpus,
            "name",
            embedding=embedding,
            retention_s=retention_s,
            verdict_ttl_ms=verdict_ttl_ms,
            filterable=filterable,
        )
        try:
            return parsed(wire.Corpus, await self._send("POST", "/v1/corpora", body=body, repeatable=exist_ok))
        except ApiError as error:
            if not exist_ok or error.code != "corpus_exists":
                raise
            return await self.corpus(body.name)

    async def corpora(self) -> list[wire.Corpus]:
        """Every corpus, by name."""
        return parsed(wire.CorpusList, await self._send("GET", "/v1/corpora")).corpora

    async def corpus(self, corpus: str) -> wire.Corpus:
        """A corpus with its head and sizes."""
        return parsed(wire.Corpus, await self._send("GET", path_of(corpus)))

    async def delete_corpus(self, corpus: str) -> None:
        """Remove a corpus with everything in it."""
        await self._send("DELETE", path_of(corpus))

    # ── commits ──────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(
        self,
        corpus: str,
        ops: Sequence[wire.Operation],
        *,
        reason: str | None = None,
        actor: str | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        stages: dict[str, float] | None = None,
    ) -> wire.CommitResult:
        """Apply operations in order, as one commit; with `fence`, returns when no verdict from before can still be
        acted on.

        The same `idempotency_key` with the same operations is applied once; without one the call brings its own.
        Adds to `stages` the seconds that the server says it spent in each stage.
        """
        response = await self._send(
            "POST",
            path_of(corpus, "commits"),
            body=built(wire.CommitRequest, ops=ops, reason=reason, actor=actor),
            parameters={"fence": fence or None},
            headers=idempotent(idempotency_key),
        )
        if stages is not None:
            for stage, seconds in server_timing(response).items():
                stages[stage] = stages.get(stage, 0.0) + seconds
        return parsed(wire.CommitResult, response)

    async def commits(self, corpus: str, *, since: int = 0, limit: int = 100) -> list[wire.CommitEntry]:
        """Up to `limit` commits after epoch `since`, oldest first."""
        response = await self._send("GET", path_of(corpus, "commits"), parameters={"since": since, "limit": limit})
        return parsed(wire.CommitPage, response).commits

    async def each_commit(self, corpus: str, *, since: int = 0) -> AsyncIterator[wire.CommitEntry]:
        """All commits after epoch `since` that there are, oldest first."""
        while page := await self.commits(corpus, since=since, limit=PAGE):
            for entry in page:
                yield entry
            since = page[-1].epoch

    async def follow(self, corpus: str, *, since: int = 0) -> AsyncIterator[wire.CommitEntry]:
        """Each commit after epoch `since`, those to come included; ends when the server ends the feed."""
        async with self._streamed(path_of(corpus, "commits"), {"since": since}) as response:
            async for data in data_of(response.aiter_bytes()):
                yield wire.CommitEntry.model_validate_json(data, extra="ignore")

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────

    async def put_document(
        self,
        corpus: str,
        key: str,
        document: str | wire.DocumentInput | None = None,
        *,
        chunks: Sequence[wire.ChunkInput] | None = None,
        title: str | None = None,
        uri: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        acl: Sequence[str] | None = None,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> wire.CommitResult:
        """Give a document a whole new state, from its text or its chunks; what is not given is reset.

        With `if_version`, only if that is its version (0: there is none).
        """
        body = whole(
            wire.DocumentInput, document, "text", chunks=chunks, title=title, uri=uri, metadata=metadata, acl=acl
        )
        response = await self._send(
            "PUT",
            path_of(corpus, "documents", key),
            body=body,
            parameters={"fence": fence or None, "reason": reason, "actor": actor},
            headers=conditional(if_version) | idempotent(idempotency_key),
        )
        return parsed(wire.CommitResult, response)

    async def document(self, corpus: str, key: str, *, at_epoch: int | None = None) -> wire.Document:
        """A document as it is, or was at an epoch."""
        path = path_of(corpus, "documents", key)
        return parsed(wire.Document, await self._send("GET", path, parameters={"at_epoch": at_epoch}))

    async def delete_document(
        self,
        corpus: str,
        key: str,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        fence: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> wire.CommitResult:
        """Delete a document; with `fence`, returns when no verdict from before can still be acted on."""
        response = await self._send(
            "DELETE",
            path_of(corpus, "documents", key),
            parameters={"fence": fence or None, "reason": reason, "actor": actor},
            headers=conditional(if_version) | idempotent(idempotency_key),
        )
        return parsed(wire.CommitResult, response)

    async def delete_documents(
        self,
        corpus: str,
        keys: Sequence[str],
        *,
        fence: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> wire.CommitResult | None:
        """Delete, in one commit, what there is of some documents; None if there is nothing of them."""
        left = list(dict.fromkeys(keys))
        for round_left in reversed(range(DELETE_ROUNDS_MAX)):
            if not left:
                break
            ops = [wire.Delete(op="delete", key=key) for key in left]
            try:
                return await self.commit(corpus, ops, fence=fence, reason=reason, actor=actor)
            except ApiError as error:
                if error.code != "document_not_found" or not round_left:
                    raise
            left = [key for key in left if await self._exists(corpus, key)]
        return None

    async def _exists(self, corpus: str, key: str) -> bool:
        try:
            await self.document(corpus, key)
        except ApiError as error:
            if error.code != "document_not_found":
                raise
            return False
        return True

    async def documents(
        self,
        corpus: str,
        *,
        prefix: str = "",
        at_epoch: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> wire.DocumentPage:
        """One page of the documents alive, in the order of their keys."""
        parameters = {"prefix": prefix or None, "at_epoch": at_epoch, "cursor": cursor, "limit": limit}
        return parsed(wire.DocumentPage, await self._send("GET", path_of(corpus, "documents"), parameters=parameters))

    async def each_document(
        self, corpus: str, *, prefix: str = "", at_epoch: int | None = None
    ) -> AsyncIterator[wire.DocumentSummary]:
        """All documents alive at one epoch, in the order of their keys."""
        cursor = None
        while True:
            page = await self.documents(corpus, prefix=prefix, at_epoch=at_epoch, cursor=cursor, limit=PAGE)
            for document in page.documents:
                yield document
            if (cursor := page.next_cursor) is None:
                return

    async def versions(self, corpus: str, key: str) -> list[wire.DocumentVersion]:
        """All versions of a document, oldest first."""
        response = await self._send("GET", path_of(corpus, "versions"), parameters={"key": key})
        return parsed(wire.DocumentVersions, response).versions
