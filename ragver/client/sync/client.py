# Derived from ragver/client/client.py by `python -m ragver.client.derive`: change that one, not this.
"""The synchronous client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ragver import wire
from ragver.client.bodies import (
    built,
    conditional,
    idempotent,
    identified,
    parsed,
    path_of,
    quoted,
    server_timing,
    whole,
)
from ragver.client.errors import ApiError, refusal
from ragver.client.sync.events import data_of
from ragver.client.sync.transport import Transport
from ragver.client.verdict import Verdict
from ragver.gate.sources import TextStream
from ragver.gate.sync import GatedStream
from ragver.types import FieldType, Policy, Scope

if TYPE_CHECKING:
    from ragver.client.sync.corpus import Corpus

PAGE = 1_000
DELETE_ROUNDS_MAX = 5
"""How often a delete is made again because others delete a part of it meanwhile."""

FieldTypeName = Literal["keyword", "integer", "float", "bool", "datetime"]
PolicyName = Literal["strict", "flag", "redact"]
ScopeName = Literal["cited", "context"]


class Client(Transport):
    """The API of one server, a method for each call; ``client["policies"]`` has those of one corpus.

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

    # ── corpora ─────────────────────────────────────────────────────────────────────────────────────────────

    def create_corpus(
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
            return parsed(wire.Corpus, self._send("POST", "/v1/corpora", body=body, repeatable=exist_ok))
        except ApiError as error:
            if not exist_ok or error.code != "corpus_exists":
                raise
            return self.corpus(body.name)

    def corpora(self) -> list[wire.Corpus]:
        """Every corpus, by name."""
        return parsed(wire.CorpusList, self._send("GET", "/v1/corpora")).corpora

    def corpus(self, corpus: str) -> wire.Corpus:
        """A corpus with its head and sizes."""
        return parsed(wire.Corpus, self._send("GET", path_of(corpus)))

    def delete_corpus(self, corpus: str) -> None:
        """Remove a corpus with everything in it."""
        self._send("DELETE", path_of(corpus))

    # ── generations ─────────────────────────────────────────────────────────────────────────────────────────

    def begin_generation(self, corpus: str, *, embedding: wire.Embedding | None = None) -> wire.Generation:
        """Build the index anew beside the serving one, or, with an `embedding`, for that one; one that is being built
        for the same goes on."""
        body = built(wire.GenerationCreate, embedding=embedding)
        return parsed(wire.Generation, self._send("POST", path_of(corpus, "generations"), body=body, repeatable=True))

    def generations(self, corpus: str) -> list[wire.Generation]:
        """The generations that are not retired, the oldest first."""
        return parsed(wire.GenerationList, self._send("GET", path_of(corpus, "generations"))).generations

    def generation(self, corpus: str, generation_id: str) -> wire.Generation:
        """How far a generation is."""
        return parsed(wire.Generation, self._send("GET", path_of(corpus, "generations", generation_id)))

    def cut_over(self, corpus: str, generation_id: str) -> wire.CutOver:
        """Let a generation serve; the one that served before stands by. Refused with ``generation_not_ready`` as long
        as it does not hold what the ledger says."""
        path = path_of(corpus, "generations", generation_id, "cut-over")
        return parsed(wire.CutOver, self._send("POST", path))

    def retire_generation(self, corpus: str, generation_id: str) -> None:
        """End a generation that is being built or stands by, for good."""
        self._send("DELETE", path_of(corpus, "generations", generation_id), repeatable=True)

    # ── commits ─────────────────────────────────────────────────────────────────────────────────────────────

    def commit(
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
        response = self._send(
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

    def commits(self, corpus: str, *, since: int = 0, limit: int = 100) -> list[wire.CommitEntry]:
        """Up to `limit` commits after epoch `since`, oldest first."""
        response = self._send("GET", path_of(corpus, "commits"), parameters={"since": since, "limit": limit})
        return parsed(wire.CommitPage, response).commits

    def each_commit(self, corpus: str, *, since: int = 0) -> Iterator[wire.CommitEntry]:
        """All commits after epoch `since` that there are, oldest first."""
        while page := self.commits(corpus, since=since, limit=PAGE):
            for entry in page:
                yield entry
            since = page[-1].epoch

    def follow(self, corpus: str, *, since: int = 0) -> Iterator[wire.CommitEntry]:
        """Each commit after epoch `since`, those to come included; ends when the server ends the feed."""
        with self._streamed(path_of(corpus, "commits"), {"since": since}) as response:
            for data in data_of(response.iter_bytes()):
                yield wire.CommitEntry.model_validate_json(data, extra="ignore")

    # ── documents ───────────────────────────────────────────────────────────────────────────────────────────

    def put_document(
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
        response = self._send(
            "PUT",
            path_of(corpus, "documents", key),
            body=body,
            parameters={"fence": fence or None, "reason": reason, "actor": actor},
            headers=conditional(if_version) | idempotent(idempotency_key),
        )
        return parsed(wire.CommitResult, response)

    def document(self, corpus: str, key: str, *, at_epoch: int | None = None) -> wire.Document:
        """A document as it is, or was at an epoch."""
        path = path_of(corpus, "documents", key)
        return parsed(wire.Document, self._send("GET", path, parameters={"at_epoch": at_epoch}))

    def delete_document(
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
        response = self._send(
            "DELETE",
            path_of(corpus, "documents", key),
            parameters={"fence": fence or None, "reason": reason, "actor": actor},
            headers=conditional(if_version) | idempotent(idempotency_key),
        )
        return parsed(wire.CommitResult, response)

    def delete_documents(
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
                return self.commit(corpus, ops, fence=fence, reason=reason, actor=actor)
            except ApiError as error:
                if error.code != "document_not_found" or not round_left:
                    raise
            left = [key for key in left if self._exists(corpus, key)]
        return None

    def _exists(self, corpus: str, key: str) -> bool:
        try:
            self.document(corpus, key)
        except ApiError as error:
            if error.code != "document_not_found":
                raise
            return False
        return True

    def documents(
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
        return parsed(wire.DocumentPage, self._send("GET", path_of(corpus, "documents"), parameters=parameters))

    def each_document(
        self, corpus: str, *, prefix: str = "", at_epoch: int | None = None
    ) -> Iterator[wire.DocumentSummary]:
        """All documents alive at one epoch, in the order of their keys."""
        cursor = None
        while True:
            page = self.documents(corpus, prefix=prefix, at_epoch=at_epoch, cursor=cursor, limit=PAGE)
            for document in page.documents:
                yield document
            if (cursor := page.next_cursor) is None:
                return

    def versions(self, corpus: str, key: str) -> list[wire.DocumentVersion]:
        """All versions of a document, oldest first."""
        response = self._send("GET", path_of(corpus, "versions"), parameters={"key": key})
        return parsed(wire.DocumentVersions, response).versions

    # ── reads ───────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── gates ───────────────────────────────────────────────────────────────────────────────────────────────

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
    ) -> GatedStream:
        """Hold what a model writes from a snapshot's hits back until it was validated; the text comes out in pieces.

        - `stream` is an iterator of text, or of the chunks of OpenAI's or Anthropic's SDK or of LangChain.
        - The hits are checked before anything comes out, then each claim with all that was cited before; a claim that
          comes before any citation is held to all hits, as every one is with scope `context`.
        - `policy` says what a bad citation does: it ends the answer (`strict`), is told of beside the text (`flag`), or
          its claim is cut (`redact`).
        - With `record`, what comes out is on record before it does, as by ``validate``.

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
        )

    # ── the server ──────────────────────────────────────────────────────────────────────────────────────────

    def ready(self) -> wire.Readiness:
        """Which of the stores the server can reach; also an answer, not an error, when it is not ready."""
        response = self._attempt("GET", "/readyz")
        if response.status_code not in (200, 503):
            raise refusal(response)
        return parsed(wire.Readiness, response)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, corpus: str, answer_id: str) -> wire.Answer:
        """What is kept of an answer that was validated with `record`; never its text."""
        return parsed(wire.Answer, self._send("GET", path_of(corpus, "answers", answer_id)))

    def revalidate(self, corpus: str, answer_id: str, *, principals: Sequence[str] = ()) -> wire.RevalidateResponse:
        """Whether a recorded answer may be served again now, to a reader with these principals.

        The verdict may be acted on for its `valid_for_ms`, counted from before this call.
        """
        body = built(wire.RevalidateRequest, principals=list(principals))
        path = path_of(corpus, "answers", answer_id, "revalidate")
        response = self._send("POST", path, body=body, repeatable=True)
        return parsed(wire.RevalidateResponse, response)

    def revalidate_many(
        self, corpus: str, ids: Sequence[str], *, principals: Sequence[str] = ()
    ) -> wire.RevalidateManyResponse:
        """The same for many answers, in their order; one that is not on record is rejected."""
        body = built(wire.RevalidateManyRequest, ids=list(ids), principals=list(principals))
        path = path_of(corpus, "answers", "revalidate")
        response = self._send("POST", path, body=body, repeatable=True)
        return parsed(wire.RevalidateManyResponse, response)

    # ── keys ────────────────────────────────────────────────────────────────────────────────────────────────

    def create_key(self, request: wire.KeyCreate) -> wire.KeyCreated:
        """Make an API key. Its secret is in this answer and cannot be had again."""
        return parsed(wire.KeyCreated, self._send("POST", "/v1/keys", body=request))

    def keys(self) -> list[wire.ApiKey]:
        """Every API key there has been, oldest first."""
        return parsed(wire.KeyList, self._send("GET", "/v1/keys")).keys

    def revoke_key(self, key_id: str) -> wire.ApiKey:
        """End an API key for good; every server process refuses it within a second."""
        return parsed(wire.ApiKey, self._send("DELETE", f"/v1/keys/{quoted(key_id)}", repeatable=True))

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

    # ── audit ───────────────────────────────────────────────────────────────────────────────────────────────

    def verify_log(self, corpus: str, *, anchor: tuple[int, str] | None = None) -> wire.LogVerification:
        """Walk the hash chain of the log; with an epoch and its hash that were written down, hold it against them."""
        epoch, digest = (None, None) if anchor is None else anchor
        path = path_of(corpus, "commits", "verification")
        response = self._send("GET", path, parameters={"epoch": epoch, "hash": digest})
        return parsed(wire.LogVerification, response)

    # ── reconciliation ──────────────────────────────────────────────────────────────────────────────────────

    def reconcile(
        self, corpus: str, request: wire.ReconciliationRequest | None = None, *, wait_s: float | None = None
    ) -> wire.Reconciliation:
        """Hold the index against the ledger, and repair it where asked to.

        Waits for the end as long as the server does, or `wait_s`; a run that goes on then has the state `running`.
        """
        body = request or wire.ReconciliationRequest()
        waits = {} if wait_s is None else {"wait_s": str(wait_s)}
        path = path_of(corpus, "reconciliations")
        return parsed(wire.Reconciliation, self._send("POST", path, body=body, parameters=waits))

    def reconciliation(self, corpus: str, run_id: str) -> wire.Reconciliation:
        """A run as it stands, with its findings."""
        return parsed(wire.Reconciliation, self._send("GET", path_of(corpus, "reconciliations", run_id)))

    def reconciliations(self, corpus: str, *, limit: int = 20) -> wire.ReconciliationList:
        """The last runs, the newest first, and when the last complete one began."""
        path = path_of(corpus, "reconciliations")
        return parsed(wire.ReconciliationList, self._send("GET", path, parameters={"limit": limit}))

    # ── retention ───────────────────────────────────────────────────────────────────────────────────────────

    def pin(self, corpus: str, *, ttl_s: int, snapshot: str | None = None, epoch: int | None = None) -> wire.Pin:
        """Hold an epoch, or that of a snapshot, readable for `ttl_s` seconds."""
        body = built(wire.PinRequest, snapshot=snapshot, epoch=epoch, ttl_s=ttl_s)
        return parsed(wire.Pin, self._send("POST", path_of(corpus, "pins"), body=body))

    def pins(self, corpus: str) -> list[wire.Pin]:
        """The pins that hold now, the oldest epoch first."""
        return parsed(wire.PinList, self._send("GET", path_of(corpus, "pins"))).pins

    def unpin(self, corpus: str, pin_id: str) -> None:
        """Let go of a pinned epoch."""
        self._send("DELETE", path_of(corpus, "pins", pin_id))

    def collect(self, corpus: str) -> wire.GcResult:
        """Remove what has passed the horizon."""
        return parsed(wire.GcResult, self._send("POST", path_of(corpus, "gc"), repeatable=True))

    # ── erasure ─────────────────────────────────────────────────────────────────────────────────────────────

    def erase(
        self,
        corpus: str,
        keys: Sequence[str],
        *,
        reason: str,
        actor: str | None = None,
        keys_too: bool = False,
    ) -> wire.ErasureReceipt:
        """Remove for good every version of every document that ever lived under one of these keys.

        A receipt that is `pending` completes by itself: ask for it again.
        """
        body = built(wire.ErasureRequest, keys=list(keys), reason=reason, actor=actor, keys_too=keys_too or None)
        return parsed(wire.ErasureReceipt, self._send("POST", path_of(corpus, "erasures"), body=body))

    def erasure(self, corpus: str, erasure_id: str) -> wire.ErasureReceipt:
        """The receipt of an erasure as it is now."""
        return parsed(wire.ErasureReceipt, self._send("GET", path_of(corpus, "erasures", erasure_id)))

    def erasures(self, corpus: str) -> list[wire.ErasureReceipt]:
        """The receipts of a corpus, newest first."""
        return parsed(wire.ErasureList, self._send("GET", path_of(corpus, "erasures"))).erasures

    def check_erasure(self, corpus: str, erasure_id: str) -> wire.ErasureCheck:
        """Look again in every store for what was erased."""
        path = path_of(corpus, "erasures", erasure_id, "verification")
        return parsed(wire.ErasureCheck, self._send("POST", path, repeatable=True))

    def receipt_key(self) -> wire.ReceiptKey:
        """The public key that the ledger's receipts can be checked with."""
        return parsed(wire.ReceiptKey, self._send("GET", "/v1/receipt-key"))
