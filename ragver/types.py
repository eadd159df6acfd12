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
