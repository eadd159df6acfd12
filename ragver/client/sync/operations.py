# Derived from ragver/client/operations.py by `python -m ragver.client.derive`: change that one, not this.
"""What operators do: the server's state, keys, and the upkeep of index and ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ragver import wire
from ragver.client.bodies import built, parsed, path_of, quoted
from ragver.client.errors import refusal
from ragver.client.sync.transport import Transport
from ragver.types import Scope


class Operations(Transport):
    """The calls for whoever runs the server."""

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────

    def ready(self) -> wire.Readiness:
        """Which of the stores the server can reach; also an answer, not an error, when it is not ready."""
        response = self._attempt("GET", "/readyz")
        if response.status_code not in (200, 503):
            raise refusal(response)
        return parsed(wire.Readiness, response)

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────

    def create_key(self, request: wire.KeyCreate) -> wire.KeyCreated:
        """Make an API key. Its secret is in this answer and cannot be had again."""
        return parsed(wire.KeyCreated, self._send("POST", "/v1/keys", body=request))

    def keys(self) -> list[wire.ApiKey]:
        """Every API key there has been, oldest first."""
        return parsed(wire.KeyList, self._send("GET", "/v1/keys")).keys

    def revoke_key(self, key_id: str) -> wire.ApiKey:
        """End an API key for good; every server process refuses it within a second."""
        return parsed(wire.ApiKey, self._send("DELETE", f"/v1/keys/{quoted(key_id)}", repeatable=True))

    # ── generations ──────────────────────────────────────────────────────────────────────────────────────────

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

    # ── reconciliation ───────────────────────────────────────────────────────────────────────────────────────

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

    # ── retention ────────────────────────────────────────────────────────────────────────────────────────────

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

    def collect(self, corpus: str, *, full: bool = False) -> wire.GcResult:
        """Remove what has passed the horizon; with `full`, rewrite the stores' files without what was removed."""
        parameters = {"full": full or None}
        response = self._send("POST", path_of(corpus, "gc"), parameters=parameters, repeatable=not full)
        return parsed(wire.GcResult, response)

    # ── erasure ──────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── webhooks ─────────────────────────────────────────────────────────────────────────────────────────────

    def add_webhook(
        self,
        corpus: str,
        url: str,
        *,
        secret: str | None = None,
        scope: Scope | Literal["cited", "context"] | None = None,
        since_epoch: int | None = None,
    ) -> wire.WebhookCreated:
        """Have recalls posted to a URL, signed; the answer alone holds the secret."""
        body = built(wire.WebhookCreate, url=url, secret=secret, scope=scope, since_epoch=since_epoch)
        return parsed(wire.WebhookCreated, self._send("POST", path_of(corpus, "webhooks"), body=body))

    def webhooks(self, corpus: str) -> list[wire.Webhook]:
        """The corpus's webhooks, and how far each is."""
        return parsed(wire.WebhookList, self._send("GET", path_of(corpus, "webhooks"))).webhooks

    def delete_webhook(self, corpus: str, webhook_id: str) -> None:
        """Have nothing more posted to it."""
        self._send("DELETE", path_of(corpus, "webhooks", webhook_id))

    def dead_letters(
        self, corpus: str, webhook_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> wire.DeadLetterPage:
        """Recalls that the webhook's receiver would not have, oldest first."""
        path = path_of(corpus, "webhooks", webhook_id, "dead-letters")
        parameters = {"cursor": cursor, "limit": limit}
        return parsed(wire.DeadLetterPage, self._send("GET", path, parameters=parameters))

    def redeliver(self, corpus: str, webhook_id: str, *, recall_ids: Sequence[str] | None = None) -> int:
        """Have dead letters delivered again, all of them or these; how many that are."""
        body = built(wire.RedeliverRequest, recall_ids=None if recall_ids is None else list(recall_ids))
        path = path_of(corpus, "webhooks", webhook_id, "dead-letters", "redeliver")
        return parsed(wire.Redelivery, self._send("POST", path, body=body, repeatable=True)).due

    # ── audit ────────────────────────────────────────────────────────────────────────────────────────────────

    def explain(
        self, corpus: str, *, chunk_id: str | None = None, key: str | None = None, answer_id: str | None = None
    ) -> wire.Story:
        """The whole story of a chunk, a document or a recorded answer, in time order; name one of them."""
        parameters = {"chunk_id": chunk_id, "key": key, "answer_id": answer_id}
        return parsed(wire.Story, self._send("GET", path_of(corpus, "explain"), parameters=parameters))

    def verify_log(self, corpus: str, *, anchor: tuple[int, str] | None = None) -> wire.LogVerification:
        """Walk the hash chain of the log; with an epoch and its hash that were written down, hold it against them."""
        epoch, digest = (None, None) if anchor is None else anchor
        path = path_of(corpus, "commits", "verification")
        response = self._send("GET", path, parameters={"epoch": epoch, "hash": digest})
        return parsed(wire.LogVerification, response)
