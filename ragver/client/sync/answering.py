# Derived from ragver/client/answering.py by `python -m ragver.client.derive`: change that one, not this.
"""What stands in front of an answer: retrieval, verdicts, gates, and the record of what went out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from ragver import wire
from ragver.citations import Document
from ragver.client.bodies import PAGE, built, identified, parsed, path_of, whole
from ragver.client.sync.events import data_of
from ragver.client.sync.transport import Transport
from ragver.client.verdict import Reuse, ReuseOfMany, Verdict
from ragver.gate.sources import TextStream
from ragver.gate.sync import GatedStream
from ragver.types import Policy, Scope

PolicyName = Literal["strict", "flag", "redact"]
ScopeName = Literal["cited", "context"]


class Answering(Transport):
    """The calls that an application makes for its answers."""

    # ── reads ────────────────────────────────────────────────────────────────────────────────────────────────

    def retrieve(
        self,
        corpus: str,
        question: str | wire.RetrieveRequest | None = None,
        *,
        vector: Sequence[float] | None = None,
        k: int | None = None,
        consistency: wire.Consistency | None = None,
        as_of: datetime | None = None,
        filter: Mapping[str, Any] | None = None,
        principals: Sequence[str] | None = None,
    ) -> wire.RetrieveResponse:
        """Up to `k` passages at one epoch, with the snapshot to validate against.

        `principals` are the reader's labels; none given: what everybody may read.
        """
        body = whole(
            wire.RetrieveRequest,
            question,
            "query",
            vector=vector,
            k=k,
            consistency=consistency,
            as_of=as_of,
            filter=filter,
            principals=principals,
        )
        response = self._send("POST", path_of(corpus, "retrieve"), body=body, repeatable=True)
        return parsed(wire.RetrieveResponse, response)

    def validate(
        self,
        corpus: str,
        snapshot: str | wire.ValidateRequest,
        *,
        answer: str | None = None,
        citations: Sequence[wire.CitationInput] | None = None,
        policy: Policy | PolicyName | None = None,
        scope: Scope | ScopeName | None = None,
        principals: Sequence[str] | None = None,
        record: bool | None = None,
        answer_id: str | None = None,
    ) -> Verdict:
        """Check what generated text cites, by its markers or as told.

        The verdict may be acted on until its deadline, and no longer. With `record`, what the answer leans on is kept
        for recalls under `answer_id`: a new one, or the same for each validation of an answer that grows.
        """
        body = whole(
            wire.ValidateRequest,
            snapshot,
            "snapshot",
            answer=answer,
            citations=citations,
            policy=policy,
            scope=scope,
            principals=principals,
            record=record,
            answer_id=answer_id,
        )
        response = self._send("POST", path_of(corpus, "validate"), body=identified(body), repeatable=True)
        return Verdict.received(response)

    # ── gates ────────────────────────────────────────────────────────────────────────────────────────────────

    def gate(
        self,
        corpus: str,
        snapshot: str,
        stream: TextStream,
        *,
        policy: Policy | PolicyName | None = None,
        scope: Scope | ScopeName | None = None,
        principals: Sequence[str] | None = None,
        record: bool | None = None,
        answer_id: str | None = None,
        documents: Sequence[Document] | None = None,
    ) -> GatedStream:
        """Hold what a model writes from a snapshot's hits back until it was validated; the text comes out in pieces.

        - `stream` is an iterator of text, or of the chunks of OpenAI's or Anthropic's SDK or of LangChain.
        - The hits are checked before anything comes out, then each claim with all that was cited before; a claim that
          comes before any citation is held to all hits, as every one is with scope `context`.
        - `policy` says what a bad citation does: it ends the answer (`strict`), is told of beside the text (`flag`), or
          its claim is cut (`redact`).
        - With `record`, what comes out is on record before it does, as by ``validate``.
        - With `documents`, what the model was given, the citations that Anthropic sends beside the text become markers.

        Raises ``TypeError`` for what is no stream. All else happens when the result is read.
        """
        terms = built(
            wire.ValidateRequest,
            snapshot=snapshot,
            citations=[],
            policy=policy,
            scope=scope,
            principals=principals,
            record=record,
            answer_id=answer_id,
        )

        def validate(request: wire.ValidateRequest) -> wire.ValidateResponse:
            # Repeated by the gate, which counts the lease from each attempt.
            return parsed(wire.ValidateResponse, self._send("POST", path_of(corpus, "validate"), body=request))

        return GatedStream(
            validate,
            snapshot,
            stream,
            policy=terms.policy,
            scope=terms.scope,
            principals=terms.principals,
            answer_id=identified(terms).answer_id,
            documents=documents,
        )

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, corpus: str, answer_id: str) -> wire.Answer:
        """What is kept of an answer that was validated with `record`; never its text."""
        return parsed(wire.Answer, self._send("GET", path_of(corpus, "answers", answer_id)))

    def revalidate(self, corpus: str, answer_id: str, *, principals: Sequence[str] = ()) -> Reuse:
        """Whether a recorded answer may be served again until the verdict's deadline, to a reader with these labels."""
        body = built(wire.RevalidateRequest, principals=list(principals))
        path = path_of(corpus, "answers", answer_id, "revalidate")
        response = self._send("POST", path, body=body, repeatable=True)
        return Reuse.received(response)

    def revalidate_many(self, corpus: str, ids: Sequence[str], *, principals: Sequence[str] = ()) -> ReuseOfMany:
        """The same for many answers, in their order; one that is not on record is rejected."""
        body = built(wire.RevalidateManyRequest, ids=list(ids), principals=list(principals))
        path = path_of(corpus, "answers", "revalidate")
        response = self._send("POST", path, body=body, repeatable=True)
        return ReuseOfMany.received(response)

    # ── recalls ──────────────────────────────────────────────────────────────────────────────────────────────

    def recalls(
        self,
        corpus: str,
        *,
        since_epoch: int = 0,
        cursor: str | None = None,
        limit: int = 100,
        scope: Scope | ScopeName | None = None,
    ) -> wire.RecallPage:
        """Delivered answers that lost what they cite to commits after an epoch, oldest first; with scope `context`,
        what they rest on at all. Its `next_cursor` is where to go on, now or later."""
        parameters = {"since_epoch": since_epoch, "cursor": cursor, "limit": limit, "scope": scope}
        return parsed(wire.RecallPage, self._send("GET", path_of(corpus, "recalls"), parameters=parameters))

    def each_recall(
        self, corpus: str, *, since_epoch: int = 0, scope: Scope | ScopeName | None = None
    ) -> Iterator[wire.Recall]:
        """All recalls by commits after an epoch that there are, oldest first."""
        cursor, more = str(since_epoch), True
        while more:
            page = self.recalls(corpus, cursor=cursor, limit=PAGE, scope=scope)
            for recall in page.recalls:
                yield recall
            cursor, more = page.next_cursor, page.more

    def follow_recalls(
        self, corpus: str, *, since_epoch: int = 0, cursor: str | None = None, scope: Scope | ScopeName | None = None
    ) -> Iterator[wire.Recall]:
        """Each recall after an epoch, or after the `recall_id` or `next_cursor` given as `cursor`, those to come
        included; ends when the server ends the feed."""
        parameters = {"since_epoch": since_epoch, "cursor": cursor, "scope": scope}
        with self._streamed(path_of(corpus, "recalls"), parameters) as response:
            for data in data_of(response.iter_bytes()):
                yield wire.Recall.model_validate_json(data, extra="ignore")
