"""The bodies that travel over HTTP, and the operations that a commit is made of.

One definition serves the API, the client and the services. Ids are strings on the wire. Unknown fields are
refused, so that a misspelt option is an error and not a surprise.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from ragver.types import (
    REF_MAX,
    WILDCARD,
    Cause,
    CitationStatus,
    Decision,
    Distance,
    DocumentStatus,
    FieldType,
    Level,
    Policy,
    Scope,
)
from ragver.wellformed import clean_metadata, printable, well_formed

OPERATIONS_MAX = 10_000
KEY_CHARACTERS_MAX = 1_024
CHUNKS_PER_DOCUMENT_MAX = 20_000
LABELS_MAX = 256
CITATIONS_MAX = 1_000
DIMENSIONS_MAX = 8_192
RETENTION_S_MIN = 60
VERDICT_TTL_MS_MAX = 60_000


def _sorted_labels(labels: list[str]) -> list[str]:
    return sorted(set(labels))


Text = Annotated[str, BeforeValidator(well_formed)]
Line = Annotated[str, BeforeValidator(well_formed), AfterValidator(printable)]
Key = Annotated[Line, Field(min_length=1, max_length=KEY_CHARACTERS_MAX, examples=["policies/leave.md"])]
CorpusName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", examples=["handbook"], description="the corpus's name"),
]
Label = Annotated[Line, Field(min_length=1, max_length=256, examples=["group:hr"])]
Acl = Annotated[
    list[Label],
    Field(min_length=1, max_length=LABELS_MAX, description="labels that may read; `*` is everybody"),
    AfterValidator(_sorted_labels),
]
Principals = Annotated[
    list[Label], Field(max_length=LABELS_MAX, description="the reader's labels; none given = only `*`")
]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(clean_metadata)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Vector = Annotated[list[FiniteFloat], Field(min_length=1, max_length=DIMENSIONS_MAX)]
EpochNumber = Annotated[int, Field(ge=0, le=2**53, description="the number of a commit; 0 is the empty corpus")]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
ChunkIdText = Annotated[str, Field(pattern=r"^[0-9]{1,19}$", examples=["100042"])]


class Body(BaseModel):
    """Common to all bodies: nothing unknown gets in, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ── corpora ─────────────────────────────────────────────────────────────────────────────────────────────────


class Embedding(Body):
    """How text becomes vectors. `external`: clients bring every vector themselves."""

    provider: Literal["hashing", "openai", "fastembed", "external"]
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    dimensions: Annotated[int, Field(ge=1, le=DIMENSIONS_MAX)] | None = None
    distance: Distance = Distance.COSINE


class CorpusCreate(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "handbook", "filterable": {"team": "keyword"}}]})

    name: CorpusName
    embedding: Embedding | None = None
    retention_s: Annotated[int, Field(ge=RETENTION_S_MIN, le=10**10)] | None = Field(
        None, description="how long older epochs stay readable; null = for ever"
    )
    verdict_ttl_ms: Annotated[int, Field(ge=1, le=VERDICT_TTL_MS_MAX)] = Field(
        2_000, description="how long a verdict may be acted on; a fenced delete waits this long"
    )
    filterable: Annotated[dict[FieldName, FieldType], Field(max_length=64)] = Field(
        default_factory=dict, description="metadata fields that filters may name, with their types"
    )


class Corpus(Body):
    name: str
    head: int = Field(description="the newest committed epoch")
    applied_epoch: int = Field(description="the index holds every change up to and including this epoch")
    horizon: int = Field(description="the oldest epoch that can still be read")
    documents: int
    chunks: int
    embedding: Embedding
    filterable: dict[str, FieldType]
    retention_s: int | None
    verdict_ttl_ms: int
    created_at: datetime


class CorpusList(Body):
    corpora: list[Corpus]


# ── commits ─────────────────────────────────────────────────────────────────────────────────────────────────


class ChunkInput(Body):
    """A piece of text that the client has cut itself, with its vector if it brings one."""

    text: Text
    vector: Vector | None = None


class DocumentInput(Body):
    """A document's whole new state. What is left out is reset: no `acl` is `["*"]`, no `title` is none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "# Leave\n\nEveryone has 30 days of leave.", "title": "Leave"}]}
    )

    text: Text | None = None
    chunks: Annotated[list[ChunkInput], Field(max_length=CHUNKS_PER_DOCUMENT_MAX)] | None = None
    title: Line | None = None
    uri: Line | None = None
    metadata: Metadata = Field(default_factory=dict)
    acl: Acl = Field(default_factory=lambda: [WILDCARD])

    @model_validator(mode="after")
    def _text_or_chunks(self) -> DocumentInput:
        if (self.text is None) == (self.chunks is None):
            raise PydanticCustomError("invalid_request", "give either `text` or `chunks`")
        return self


IfVersion = Annotated[
    int, Field(ge=0, description="apply only if this is the document's version; 0 = only if there is none")
]


class Put(DocumentInput):
    op: Literal["put"]
    key: Key
    if_version: IfVersion | None = None


class Delete(Body):
    op: Literal["delete"]
    key: Key
    if_version: IfVersion | None = None


class Rename(Body):
    op: Literal["rename"]
    key: Key
    new_key: Key


class SetAcl(Body):
    op: Literal["set_acl"]
    key: Key
    acl: Acl


class SetMetadata(Body):
    op: Literal["set_metadata"]
    key: Key
    metadata: Metadata


Operation = Annotated[Put | Delete | Rename | SetAcl | SetMetadata, Field(discriminator="op")]
IdempotencyKey = Annotated[Line, Field(min_length=1, max_length=255)]


class CommitRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ops": [
                        {"op": "put", "key": "policies/leave.md", "text": "Everyone has 30 days of leave."},
                        {"op": "delete", "key": "policies/leave-2021.md"},
                    ],
                    "reason": "new leave policy",
                    "actor": "ada",
                }
            ]
        }
    )

    ops: Annotated[list[Operation], Field(max_length=OPERATIONS_MAX)]
    reason: Annotated[Line, Field(max_length=1000)] | None = None
    actor: Annotated[Line, Field(max_length=255)] | None = None


class DocumentChange(Body):
    key: str
    version: int
    status: DocumentStatus
    chunks_added: int
    chunks_kept: int
    chunks_removed: int


class CommitResult(Body):
    epoch: int
    committed_at: datetime
    replayed: bool = Field(description="the same request had been applied before; this is its answer")
    fenced: bool = Field(description="no verdict from before this commit can still be acted on")
    documents: list[DocumentChange]


class CommitEntry(Body):
    epoch: int
    committed_at: datetime
    actor: str | None
    reason: str | None
    idempotency_key: str | None
    documents: list[DocumentChange]


class CommitPage(Body):
    commits: list[CommitEntry]


# ── documents ───────────────────────────────────────────────────────────────────────────────────────────────


class Chunk(Body):
    chunk_id: str
    text: str


class Document(Body):
    key: str
    version: int
    born_epoch: int = Field(description="the epoch that brought this version")
    died_epoch: int | None = Field(description="the epoch that ended this version")
    title: str | None
    uri: str | None
    metadata: dict[str, Any]
    acl: list[str]
    text: str
    chunks: list[Chunk]


class DocumentSummary(Body):
    key: str
    version: int
    title: str | None
    uri: str | None
    born_epoch: int


class DocumentPage(Body):
    documents: list[DocumentSummary]
    next_cursor: str | None


class DocumentVersion(Body):
    version: int
    key: str
    born_epoch: int
    died_epoch: int | None
    cause: Cause | None
    title: str | None
    uri: str | None
    metadata: dict[str, Any]
    acl: list[str]
    chunks: int


class DocumentVersions(Body):
    versions: list[DocumentVersion]


# ── retrieval ───────────────────────────────────────────────────────────────────────────────────────────────


class Consistency(Body):
    level: Level = Level.STRONG
    epoch: EpochNumber | None = Field(None, description="for `at_least` and `exact`")
    snapshot: str | None = Field(None, description="a snapshot token in place of `epoch`")
    max_lag_epochs: Annotated[int, Field(ge=0)] | None = Field(None, description="for `bounded`")

    @model_validator(mode="after")
    def _fits_level(self) -> Consistency:
        wants_epoch = self.level in (Level.AT_LEAST, Level.EXACT)
        if wants_epoch and (self.epoch is None) == (self.snapshot is None):
            raise PydanticCustomError(
                "invalid_request",
                "level {level} needs either `epoch` or `snapshot`",
                {"level": self.level.value},
            )
        if not wants_epoch and (self.epoch is not None or self.snapshot is not None):
            raise PydanticCustomError(
                "invalid_request", "level {level} takes no `epoch` or `snapshot`", {"level": self.level.value}
            )
        if self.max_lag_epochs is not None and self.level is not Level.BOUNDED:
            raise PydanticCustomError("invalid_request", "`max_lag_epochs` goes with level bounded")
        return self


class RetrieveRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "How many days of leave do I have?", "k": 5, "principals": ["group:staff"]}]
        }
    )

    query: Annotated[Text, Field(min_length=1, max_length=100_000)] | None = None
    vector: Vector | None = None
    k: Annotated[int, Field(ge=1, le=REF_MAX)] = 10
    consistency: Consistency | None = None
    as_of: datetime | None = Field(None, description="read the newest epoch committed by this time")
    filter: dict[str, JsonValue] | None = Field(
        None, examples=[{"all": [{"field": "team", "eq": "hr"}, {"not": {"field": "year", "lt": 2020}}]}]
    )
    principals: Principals = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_question_one_epoch(self) -> RetrieveRequest:
        if (self.query is None) == (self.vector is None):
            raise PydanticCustomError("invalid_request", "give either `query` or `vector`")
        if self.as_of is not None and self.consistency is not None:
            raise PydanticCustomError("invalid_request", "give either `as_of` or `consistency`")
        if self.as_of is not None and self.as_of.tzinfo is None:
            raise PydanticCustomError("invalid_request", "`as_of` needs a time zone, like 2026-01-31T12:00:00Z")
        return self


class HitDocument(Body):
    key: str
    version: int
    title: str | None
    uri: str | None
    metadata: dict[str, Any]


class Hit(Body):
    ref: int = Field(description="1…k; what a marker `[1]` in the generated text points to")
    chunk_id: str
    score: float
    text: str
    document: HitDocument
    born_epoch: int


class RetrieveResponse(Body):
    snapshot: str = Field(description="hand this to validate, or to a later retrieval at the same epoch")
    epoch: int
    head: int
    applied_epoch: int
    tail: int = Field(description="chunk changes beyond the applied epoch that were read from the ledger")
    hits: list[Hit]


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────────


class CitationInput(Body):
    ref: Annotated[int, Field(ge=0, le=2**53)] | None = None
    chunk_id: ChunkIdText | None = None
    quote: Annotated[Text, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _ref_or_chunk(self) -> CitationInput:
        if (self.ref is None) == (self.chunk_id is None):
            raise PydanticCustomError("invalid_request", "a citation names either `ref` or `chunk_id`")
        return self


class ValidateRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"snapshot": "eyJ2Ij…", "answer": "You have 30 days of leave [1].", "policy": "strict"}]
        }
    )

    snapshot: str
    citations: Annotated[list[CitationInput], Field(max_length=CITATIONS_MAX)] | None = None
    answer: Text | None = Field(None, description="generated text whose markers are citations")
    policy: Policy = Policy.STRICT
    scope: Scope = Scope.CITED
    principals: Principals = Field(default_factory=list)

    @model_validator(mode="after")
    def _something_to_check(self) -> ValidateRequest:
        if self.citations is None and self.answer is None and self.scope is Scope.CITED:
            raise PydanticCustomError("invalid_request", "give `citations`, `answer`, or scope `context`")
        return self


class CitationVerdict(Body):
    ref: int | None
    chunk_id: str | None
    status: CitationStatus
    document_key: str | None
    version: int | None = Field(description="the newest version that holds the chunk")
    died_epoch: int | None
    superseded_by: int | None = Field(description="the document's present version, when it no longer holds the chunk")
    detail: str


class ValidateResponse(Body):
    verdict: Decision
    epoch: int = Field(description="every commit up to this epoch is reflected")
    snapshot_epoch: int
    checked_at: datetime
    valid_for_ms: int = Field(
        description="release within this time, by your monotonic clock, counted from before you asked"
    )
    citations: list[CitationVerdict]
    answer: str | None = Field(None, description="with policy redact: what is left of the answer")


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────────


class Readiness(Body):
    """Which store can be reached. Not ready unless both can."""

    status: str
    ledger: str
    index: str


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────


class Problem(BaseModel):
    """An error as RFC 9457 describes it. Decide by `code` and `retryable`; show `detail` to people."""

    type: str
    title: str
    status: int
    code: str
    retryable: bool
    detail: str
    errors: list[dict[str, Any]] | None = None
