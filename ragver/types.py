"""The words of the domain as types: ids, epochs and the closed sets that the guarantees speak of."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

CorpusId = NewType("CorpusId", int)
DocumentId = NewType("DocumentId", int)
ChunkId = NewType("ChunkId", int)
GenerationId = NewType("GenerationId", int)
Epoch = NewType("Epoch", int)
"""The number of a commit in its corpus: 1, 2, 3 … without gaps; 0 is the empty corpus before the first."""

Lineage = NewType("Lineage", str)
"""The beginning of the hash of an epoch's commit, which tells this epoch from another of the same number: a ledger
that is restored from a backup issues numbers anew."""

WILDCARD = "*"
"""The access label that every reader carries."""

REF_MAX = 1_000
"""The most hits a retrieval may return. Chunk ids start above it, so that a number in the brackets of a
citation marker is either a ref or a chunk id, and never both."""


class Level(StrEnum):
    """How fresh a retrieval must be."""

    STRONG = "strong"
    BOUNDED = "bounded"
    AT_LEAST = "at_least"
    EXACT = "exact"


class Distance(StrEnum):
    """How two vectors are compared; the names are Qdrant's."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLID = "euclid"
    MANHATTAN = "manhattan"

    @property
    def larger_is_closer(self) -> bool:
        """Whether a larger score is the better one."""
        return self in (Distance.COSINE, Distance.DOT)


class Role(StrEnum):
    """What an API key may do; each role may do all that the ones before it may."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class FieldType(StrEnum):
    """Types of metadata fields that a corpus declares as filterable."""

    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"


class Cause(StrEnum):
    """Why a chunk or a document version died."""

    SUPERSEDED = "superseded"
    DELETED = "deleted"
    ERASED = "erased"


class GenerationState(StrEnum):
    """What an index generation is there for."""

    BUILDING = "building"
    """It is being filled, to serve later."""
    SERVING = "serving"
    STANDBY = "standby"
    """It has served, and is kept current so that one can go back to it."""
    RETIRED = "retired"
    """Its collection is gone, or about to be."""


class RecallCause(StrEnum):
    """What took a chunk from an answer that was delivered."""

    SUPERSEDED = "superseded"
    DELETED = "deleted"
    ERASED = "erased"
    FORBIDDEN = "forbidden"
    """The chunk may live on, but the answer's reader may no longer read it."""


class DocumentStatus(StrEnum):
    """What a commit did to a document."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    RENAMED = "renamed"
    DELETED = "deleted"


class CitationStatus(StrEnum):
    """What the validator found out about one citation."""

    LIVE = "live"
    SUPERSEDED = "superseded"
    DELETED = "deleted"
    ERASED = "erased"
    FORBIDDEN = "forbidden"
    NOT_RETRIEVED = "not_retrieved"
    UNKNOWN = "unknown"
    MISQUOTED = "misquoted"


class Policy(StrEnum):
    """What a bad citation does to the text that leans on it."""

    STRICT = "strict"
    FLAG = "flag"
    REDACT = "redact"


class Scope(StrEnum):
    """Which chunks a verdict looks at: only the cited ones, or every hit of the snapshot."""

    CITED = "cited"
    CONTEXT = "context"


class Decision(StrEnum):
    """The verdict on one piece of generated text."""

    PASS = "pass"
    FLAG = "flag"
    REJECT = "reject"


class DriftKind(StrEnum):
    """How what the index holds can differ from what the ledger says it must hold."""

    MISSING = "missing"
    """The index lacks a chunk."""
    ORPHAN = "orphan"
    """The index holds a point that the ledger knows nothing of, or of which it has removed everything."""
    ZOMBIE = "zombie"
    """Dead in the ledger, alive in the index."""
    BURIED = "buried"
    """Alive in the ledger and marked dead in the index, or marked with another death than the ledger's."""
    STALE_PAYLOAD = "stale_payload"
    """Epochs, access or filterable fields differ."""
    VECTOR_MISMATCH = "vector_mismatch"
    UNREACHABLE = "unreachable"
    """There by its id, and not found by its own vector."""
    MISCONFIGURED = "misconfigured"
    """The collection itself: its parameters, or its payload indexes."""


class History(StrEnum):
    """What the stamp of a collection says about how ledger and index belong together."""

    SAME = "same"
    UNSTAMPED = "unstamped"
    """Points without a stamp: from before there were stamps, or brought there by other means."""
    EMPTIED = "emptied"
    """Neither points nor a stamp, where changes had been applied."""
    INDEX_OLDER = "index_older"
    """The index is behind what was applied to it: it comes from a backup."""
    LEDGER_OLDER = "ledger_older"
    """The index is ahead of the ledger, which comes from a backup."""
    FORKED = "forked"
    """The ledger has gone on from a backup: it has other commits than those that the index holds."""
    FOREIGN = "foreign"
    """The index belongs to another ledger."""


class RunState(StrEnum):
    """How a reconciliation stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    """A guard said no; nothing was changed."""
    FAILED = "failed"
    """It could not be done: see its detail."""
