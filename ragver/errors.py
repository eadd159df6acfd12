"""Every error ragver raises on purpose.

RagverError
├── InvalidRequest            the caller can mend it
│   ├── InvalidText, DocumentTooLarge, RequestTooLarge, VectorInvalid, FieldInvalid, FilterInvalid
│   ├── SnapshotInvalid, SnapshotForeign, EpochAhead, TimeAhead, QueryNotEmbeddable
│   └── IdempotencyKeyReused, WebhookUrlRefused
├── Unauthenticated           nobody knows who is asking: KeyMissing, KeyInvalid
├── NotAllowed                whoever is asking may not
├── NotFound                  CorpusNotFound, GenerationNotFound, DocumentNotFound, PinNotFound, ErasureNotFound,
│                             ChunkNotFound, AnswerNotFound, WebhookNotFound, KeyNotFound, ReconciliationNotFound
├── Conflict                  CorpusExists, DocumentExists, VersionConflict, PreconditionFailed, TooManyPins,
│                             GenerationInTheWay, EmbeddingUnchanged, AnswerIdTaken, KeyExists,
│                             ReconciliationRunning, TooManyWebhooks
├── SnapshotExpired           the horizon has passed the epoch
├── DocumentErased            the document was there at the epoch, and has been erased since
├── Busy                      CommitContention, GenerationNotReady, IndexLagging, CollectionRunning,
│                             AnswerContention, AnswersUnsettled,
│                             RateLimited, LedgerMovesOn: try again
├── Unavailable               LedgerUnavailable, IndexUnavailable, EmbeddingUnavailable
├── GateError                 a gate lets nothing more out
│   ├── ModelFailed, ClaimTooLong, VerdictIncomplete, VerdictOverdue
│   └── AnswerRetracted       with what has to be taken back; defined beside the gate in `ragver.gate`
├── SetupError                DataDirInUse, LedgerNotMigrated, LedgerMismatch, NotInstalled, SettingsInvalid,
│                             IndexUnsupported, ServerUnguarded
└── ApiError                  what a server answered, with its code; defined beside the client in `ragver.client`

Each class fixes a stable ``code``, the HTTP ``status`` it becomes and whether repeating the same request can
help (``retryable``). The message is for people: it says what is wrong and what to do.
"""

from __future__ import annotations


class RagverError(Exception):
    """The root: catch this to catch everything ragver raises on purpose."""

    code: str = "internal"
    status: int = 500
    title: str = "Internal error"
    retryable: bool = False

    @property
    def detail(self) -> str:
        """What is wrong with this request and what to do about it."""
        return str(self)


class InvalidRequest(RagverError):
    code, status, title = "invalid_request", 422, "The request is not valid"


class InvalidText(InvalidRequest):
    code, title = "invalid_text", "The text cannot be stored"


class DocumentTooLarge(InvalidRequest):
    code, status, title = "document_too_large", 413, "The document is too large"


class RequestTooLarge(InvalidRequest):
    code, status, title = "request_too_large", 413, "The request body is too large"


class VectorInvalid(InvalidRequest):
    code, title = "vector_invalid", "The vector does not fit the corpus"


class FieldInvalid(InvalidRequest):
    code, title = "field_invalid", "A metadata field does not fit its declaration"


class FilterInvalid(InvalidRequest):
    code, title = "filter_invalid", "The filter is not valid"


class SnapshotInvalid(InvalidRequest):
    code, status, title = "snapshot_invalid", 400, "The snapshot token is not genuine"


class SnapshotForeign(InvalidRequest):
    code, status, title = "snapshot_foreign", 400, "The snapshot token belongs elsewhere"


class EpochAhead(InvalidRequest):
    code, title = "epoch_ahead", "The epoch has not been issued"


class TimeAhead(InvalidRequest):
    code, title = "time_ahead", "The time lies in the future"


class QueryNotEmbeddable(InvalidRequest):
    code, title = "query_not_embeddable", "The corpus cannot embed text"


class WebhookUrlRefused(InvalidRequest):
    code, title = "webhook_url_refused", "A webhook may not go there"


class IdempotencyKeyReused(InvalidRequest):
    code, title = "idempotency_key_reused", "The idempotency key was used for another request"


class Unauthenticated(RagverError):
    code, status, title = "unauthenticated", 401, "Nobody knows who is asking"


class KeyMissing(Unauthenticated):
    code, title = "key_missing", "An API key is needed"


class KeyInvalid(Unauthenticated):
    code, title = "key_invalid", "The API key is not valid"


class NotAllowed(RagverError):
    code, status, title = "not_allowed", 403, "This API key may not do that"


class NotFound(RagverError):
    code, status, title = "not_found", 404, "Not found"


class GenerationNotFound(NotFound):
    code, title = "generation_not_found", "There is no such index generation"


class CorpusNotFound(NotFound):
    code, title = "corpus_not_found", "There is no such corpus"


class DocumentNotFound(NotFound):
    code, title = "document_not_found", "There is no such document"


class ChunkNotFound(NotFound):
    code, title = "chunk_not_found", "There is no such chunk"


class WebhookNotFound(NotFound):
    code, title = "webhook_not_found", "There is no such webhook"


class AnswerNotFound(NotFound):
    code, title = "answer_not_found", "There is no such recorded answer"


class KeyNotFound(NotFound):
    code, title = "key_not_found", "There is no such API key"


class PinNotFound(NotFound):
    code, title = "pin_not_found", "There is no such pin"


class ErasureNotFound(NotFound):
    code, title = "erasure_not_found", "There is no such erasure"


class ReconciliationNotFound(NotFound):
    code, title = "reconciliation_not_found", "There is no such reconciliation"


class Conflict(RagverError):
    code, status, title = "conflict", 409, "The request does not fit the present state"


class CorpusExists(Conflict):
    code, title = "corpus_exists", "The corpus exists already"


class DocumentExists(Conflict):
    code, title = "document_exists", "The document exists already"


class VersionConflict(Conflict):
    code, title = "version_conflict", "The document has another version"


class EmbeddingUnchanged(Conflict):
    code, title = "embedding_unchanged", "The corpus has this embedding already"


class GenerationInTheWay(Conflict):
    code, title = "generation_in_the_way", "Another index generation is in the way"


class PreconditionFailed(Conflict):
    code, status, title = "precondition_failed", 412, "The If-Match precondition does not hold"


class TooManyWebhooks(Conflict):
    code, title = "too_many_webhooks", "The corpus has as many webhooks as it may"


class AnswerIdTaken(Conflict):
    code, title = "answer_id_taken", "The answer's id belongs to another reader's answer"


class KeyExists(Conflict):
    code, title = "key_exists", "There is an API key of this name already"


class TooManyPins(Conflict):
    code, title = "too_many_pins", "The corpus has as many pins as it may have"


class ReconciliationRunning(Conflict):
    code, title = "reconciliation_running", "A reconciliation of this corpus is under way"


class SnapshotExpired(RagverError):
    code, status, title = "snapshot_expired", 410, "The snapshot can no longer be read"


class DocumentErased(RagverError):
    code, status, title = "document_erased", 410, "The document was erased"


class Busy(RagverError):
    code, status, title, retryable = "busy", 503, "Too busy", True


class CommitContention(Busy):
    code, title = "commit_contention", "Other commits kept overtaking this one"


class GenerationNotReady(Busy):
    code, title = "generation_not_ready", "The index generation cannot serve yet"


class IndexLagging(Busy):
    code, title = "index_lagging", "The index lags too far behind"


class AnswerContention(Busy):
    code, title = "answer_contention", "What the answer rests on kept changing while it was to be recorded"


class AnswersUnsettled(Busy):
    code, title = "answers_unsettled", "An answer is still being recorded"


class RateLimited(Busy):
    """Not before `retry_after_s` is it worth asking again."""

    code, status, title = "rate_limited", 429, "This API key has asked too often"

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class LedgerMovesOn(Busy):
    code, title = "ledger_moves_on", "The ledger changed faster than the index could be repaired"


class CollectionRunning(Busy):
    code, title = "collection_running", "Another process removes what has passed the horizon"


class Unavailable(RagverError):
    code, status, title, retryable = "unavailable", 503, "A store is unavailable", True


class LedgerUnavailable(Unavailable):
    code, title = "ledger_unavailable", "The ledger cannot be reached"


class IndexUnavailable(Unavailable):
    code, title = "index_unavailable", "The index cannot be reached"


class EmbeddingUnavailable(Unavailable):
    code, title = "embedding_unavailable", "The embedding service did not answer as it should"


class GateError(RagverError):
    code, status, title = "gate_error", 502, "The text cannot be let out"


class ModelFailed(GateError):
    code, title = "model_failed", "The model's stream ended with a failure"


class ClaimTooLong(GateError):
    code, title = "claim_too_long", "The model writes and writes, and nothing can be let out"


class VerdictIncomplete(GateError):
    code, title = "verdict_incomplete", "The verdict does not cover what was asked"


class VerdictOverdue(GateError):
    code, status, title, retryable = "verdict_overdue", 503, "The validator does not answer in time", True


class SetupError(RagverError):
    """The installation, not a request, is at fault; the command line shows it and exits with 2."""

    code, title = "setup_error", "ragver is not set up"


class DataDirInUse(SetupError):
    code, title = "data_dir_in_use", "Another process holds the data directory"


class LedgerNotMigrated(SetupError):
    code, title = "ledger_not_migrated", "The ledger's schema is not current"


class NotInstalled(SetupError):
    code, title = "not_installed", "An optional package is missing"


class SettingsInvalid(SetupError):
    code, title = "settings_invalid", "The settings do not fit together"


class IndexUnsupported(SetupError):
    code, title = "index_unsupported", "The index server is too old"


class ServerUnguarded(SetupError):
    code, title = "server_unguarded", "The server would be open to everybody"
