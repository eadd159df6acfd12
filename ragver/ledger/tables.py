"""The ledger's tables, as SQLAlchemy Core declares them.

Every primary key starts with the corpus, so that a ledger can be partitioned or distributed by corpus. The
tables that a commit fills carry no foreign keys: they are written by one statement only
(``ragver.ledger.commits``), and a key check for each of ten thousand chunks would cost more than the insert.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint

CHUNK_ID_FIRST = 100_001
"""Above ``types.REF_MAX``, so that chunk ids and refs cannot be mistaken for each other in a text."""

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

chunk_id_seq = Sequence("chunk_id_seq", start=CHUNK_ID_FIRST, metadata=metadata)
document_id_seq = Sequence("document_id_seq", metadata=metadata)

# One row: who this ledger is. Snapshot tokens carry its id, so that a token from elsewhere is recognised.
ledger = Table(
    "ledger",
    metadata,
    Column("singleton", Boolean, server_default=text("true"), nullable=False),
    Column("id", Uuid, server_default=text("gen_random_uuid()"), nullable=False),
    PrimaryKeyConstraint("singleton"),
    CheckConstraint("singleton", name="one_row"),
)

# The row lock on `corpus` is what makes epoch order commit order.
corpus = Table(
    "corpus",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("name", Text, nullable=False),
    Column("epoch", BigInteger, server_default=text("0"), nullable=False),
    Column("horizon", BigInteger, server_default=text("0"), nullable=False),
    # The newest epoch that changed access or filterable metadata of chunks that lived on.
    Column("payload_epoch", BigInteger, server_default=text("0"), nullable=False),
    Column("last_committed_at", DateTime(timezone=True)),
    Column("filterable", JSONB, nullable=False),
    Column("retention_s", BigInteger),
    Column("verdict_ttl_ms", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # The generation that serves. Here and not only there, so that a commit's compare-and-set notices a cut-over:
    # of what a statement reads, only the row that it waited to lock is read again.
    Column("generation_id", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
)

commit_log = Table(
    "commit_log",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("committed_at", DateTime(timezone=True), nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("idempotency_key", Text),
    Column("request_hash", LargeBinary, nullable=False),
    # The documents of the answer, so that a repeated request is answered the same.
    Column("summary", JSONB, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # Only where an erasure took the content: the digest of the commit as it was made, which the chain goes by.
    Column("digest", LargeBinary),
    Column("redacted_by", BigInteger),
    PrimaryKeyConstraint("corpus_id", "epoch"),
    Index(
        "commit_log_idempotency_key",
        "corpus_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index(None, "corpus_id", "committed_at"),
)

document = Table(
    "document",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("key", Text(collation="C"), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("alive", Boolean, nullable=False),
    # Today's access list and metadata; for a dead document the last ones.
    Column("acl", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("touched_epoch", BigInteger, nullable=False),
    # The newest epoch that changed filterable metadata while the document lived.
    Column("metadata_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("corpus_id", "id"),
    # Deferred, because one commit may delete a document and rename another onto its key.
    ExcludeConstraint(
        ("corpus_id", "="),
        ("key", "="),
        where=text("alive"),
        using="btree",
        deferrable=True,
        initially="DEFERRED",
        name="document_living_key",
    ),
    Index(None, "corpus_id", "key"),
    Index(None, "corpus_id", "touched_epoch"),
)

document_version = Table(
    "document_version",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("document_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("key", Text(collation="C"), nullable=False),
    Column("born_epoch", BigInteger, nullable=False),
    Column("died_epoch", BigInteger),
    Column("cause", Text),
    Column("title", Text),
    Column("uri", Text),
    Column("metadata", JSONB, nullable=False),
    Column("acl", JSONB, nullable=False),
    # In the order of the text: their texts joined are the text as it was put.
    Column("chunk_ids", ARRAY(BigInteger), nullable=False),
    PrimaryKeyConstraint("corpus_id", "document_id", "version"),
    Index(None, "corpus_id", "key", "version"),
    # Recalls look here for the versions that closed a document to somebody.
    Index(None, "corpus_id", "born_epoch"),
)

chunk = Table(
    "chunk",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("document_id", BigInteger, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    # NULL once retention or erasure has removed it; the rest of the row stays as the tombstone.
    Column("text", Text),
    Column("born_epoch", BigInteger, nullable=False),
    Column("died_epoch", BigInteger),
    Column("cause", Text),
    Column("touched_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("corpus_id", "id"),
    Index(None, "corpus_id", "touched_epoch", "id"),
    Index(None, "corpus_id", "document_id"),
    Index(None, "corpus_id", "content_hash"),
    # What retention has still to remove, in the order of death.
    Index(
        "chunk_removable",
        "corpus_id",
        "died_epoch",
        "id",
        postgresql_where=text("died_epoch IS NOT NULL AND text IS NOT NULL"),
    ),
    # The deaths of a span of epochs: recalls are computed from them when somebody asks.
    Index("chunk_deaths", "corpus_id", "died_epoch", "id", postgresql_where=text("died_epoch IS NOT NULL")),
)

index_generation = Table(
    "index_generation",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpus.id"), nullable=False),
    Column("id", BigInteger, Identity(always=False), nullable=False),
    Column("embedding", JSONB, nullable=False),
    Column("collection", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("applied_epoch", BigInteger, server_default=text("0"), nullable=False),
    Column("leader_term", BigInteger, server_default=text("0"), nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # The epoch at which the whole collection was found equal to the ledger, before it first served.
    Column("verified_epoch", BigInteger),
    # Why it does not get on, for people; NULL while it does.
    Column("problem", Text),
    PrimaryKeyConstraint("corpus_id", "id"),
    UniqueConstraint("collection"),
    CheckConstraint("state IN ('building', 'serving', 'standby', 'retired')", name="state"),
    # Deferred, because a cut-over swaps two generations in one statement.
    ExcludeConstraint(
        ("corpus_id", "="),
        where=text("state = 'serving'"),
        using="btree",
        deferrable=True,
        initially="DEFERRED",
        name="index_generation_one_serving",
    ),
    ExcludeConstraint(
        ("corpus_id", "="),
        where=text("state IN ('building', 'standby')"),
        using="btree",
        deferrable=True,
        initially="DEFERRED",
        name="index_generation_one_beside",
    ),
)

# Collections that no generation has any more, and that the index may still hold: ledger and index cannot forget
# in one transaction, so what the index has to forget is remembered here until it surely has.
dropped_collection = Table(
    "dropped_collection",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("generation_id", BigInteger, nullable=False),
    Column("collection", Text, nullable=False),
    Column("embedding", JSONB, nullable=False),
    Column("dropped_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    PrimaryKeyConstraint("corpus_id", "generation_id"),
)

embedding = Table(
    "embedding",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("generation_id", BigInteger, nullable=False),
    Column("chunk_id", BigInteger, nullable=False),
    # float32, little-endian, as the index holds it.
    Column("vector", LargeBinary, nullable=False),
    PrimaryKeyConstraint("corpus_id", "generation_id", "chunk_id"),
)

# Holds the horizon at an epoch until it expires.
pin = Table(
    "pin",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpus.id"), nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    PrimaryKeyConstraint("corpus_id", "id"),
)

# What was erased, how far that is, and what the log's redacted rows are proven by.
erasure = Table(
    "erasure",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpus.id"), nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    # As they were asked for, or their pseudonyms.
    Column("keys", ARRAY(Text), nullable=False),
    Column("keys_too", Boolean, nullable=False),
    Column("document_ids", ARRAY(BigInteger), nullable=False),
    Column("chunk_ids", ARRAY(BigInteger), nullable=False),
    Column("versions", Integer, nullable=False),
    # Pairs of an epoch and the digest of what is left of its row. The commit's request hash seals them.
    Column("redactions", JSONB, nullable=False),
    Column("stores", JSONB, nullable=False),
    Column("completed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("corpus_id", "id"),
    Index("erasure_pending", "corpus_id", "id", postgresql_where=text("completed_at IS NULL")),
    Index(None, "corpus_id", "epoch"),
)

erasure_id_seq = Sequence("erasure_id_seq", metadata=metadata)
# What is kept of an answer whose validation was recorded: never its text.
answer = Table(
    "answer",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    # Outside it is the answer's id.
    Column("key", Text(collation="C"), nullable=False),
    Column("recorded_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # Of the newest validation.
    Column("validated_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("snapshot_epoch", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("validations", Integer, server_default=text("1"), nullable=False),
    # Of the first verdict on which text could go out; NULL if there was none.
    Column("delivered_epoch", BigInteger),
    Column("delivered_at", DateTime(timezone=True)),
    # A fingerprint of the reader's labels, and one of each label: enough to tell whether an access list has one.
    Column("reader", Text, nullable=False),
    Column("labels", ARRAY(LargeBinary), nullable=False),
    PrimaryKeyConstraint("corpus_id", "id"),
    UniqueConstraint("corpus_id", "key"),
    Index(None, "corpus_id", "validated_at"),
)

# What an answer cites and what else was in front of whoever wrote it: the hits of its snapshots.
answer_citation = Table(
    "answer_citation",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("answer_id", BigInteger, nullable=False),
    # NULL where a citation stands for nothing.
    Column("chunk_id", BigInteger),
    Column("ref", BigInteger),
    # NULL for a hit that is not cited.
    Column("status", Text),
    # The epochs of the first verdicts on which text went out that cites the chunk, or that rests on it at all.
    Column("cited_epoch", BigInteger),
    Column("rested_epoch", BigInteger),
    UniqueConstraint("corpus_id", "answer_id", "chunk_id", "ref", postgresql_nulls_not_distinct=True),
    # With all that recalls want to know of a chunk's answers: these lie anywhere in the table, and may be many.
    Index(
        "answer_citation_by_chunk",
        "corpus_id",
        "chunk_id",
        "answer_id",
        postgresql_include=["ref", "cited_epoch", "rested_epoch"],
    ),
)

# Who may ask. A row stays for ever, also once the key is revoked: the log names keys, and a ledger that has had
# one is never open again.
api_key = Table(
    "api_key",
    metadata,
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    # NULL: all corpora, or whatever principals a request names.
    Column("corpora", ARRAY(Text)),
    Column("principals", ARRAY(Text)),
    Column("rate_per_s", Double),
    Column("comment", Text),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id"),
    CheckConstraint("role IN ('reader', 'writer', 'admin')", name="role"),
    # A name is free again once its key is revoked, so that a key can be replaced.
    Index("api_key_living_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
)

# A run of the reconciler; while it lasts, how far it is.
reconciliation = Table(
    "reconciliation",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpus.id"), nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("generation_id", BigInteger, nullable=False),
    Column("repair", Boolean, nullable=False),
    Column("verify_vectors", Boolean, nullable=False),
    Column("max_drift_ratio", Double, nullable=False),
    Column("points_per_s", Integer),
    Column("state", Text, nullable=False),
    Column("detail", Text),
    Column("epoch", BigInteger, nullable=False),
    Column("history", Text, nullable=False),
    Column("phase", Text, nullable=False),
    # Everything up to this chunk is in the numbers, and in the findings.
    Column("place", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("in_flight", BigInteger, nullable=False),
    Column("expected", BigInteger, nullable=False),
    # By kind of drift.
    Column("found", JSONB, nullable=False),
    Column("remaining", JSONB, nullable=False),
    Column("started_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    Column("resumed", Integer, server_default=text("0"), nullable=False),
    PrimaryKeyConstraint("corpus_id", "id"),
    CheckConstraint("state IN ('running', 'complete', 'stopped', 'failed')", name="state"),
)

# What a run has found. It says nothing of any text, so that an erasure need not look here.
finding = Table(
    "finding",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("reconciliation_id", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    # NULL where the collection itself is meant.
    Column("chunk_id", BigInteger),
    Column("document_id", BigInteger),
    Column("evidence", JSONB, nullable=False),
    Column("repaired", Boolean, nullable=False),
    PrimaryKeyConstraint("corpus_id", "reconciliation_id", "number"),
)

# Where recalls are told, and how far that has come.
webhook = Table(
    "webhook",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("scope", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # Everything up to here, in the order of recalls, was delivered or is a dead letter.
    Column("position_epoch", BigInteger, nullable=False),
    Column("position_answer", BigInteger, nullable=False),
    # Failed ones, of the next event.
    Column("attempts", Integer, server_default=text("0"), nullable=False),
    Column("next_attempt_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("last_error", Text),
    Column("delivered_at", DateTime(timezone=True)),
    Column("disabled_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("corpus_id", "id"),
)

# Recalls that a webhook's receiver would not have, by their place; what they say is computed again.
webhook_dead_letter = Table(
    "webhook_dead_letter",
    metadata,
    Column("corpus_id", BigInteger, nullable=False),
    Column("webhook_id", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("answer_id", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("failed_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    # Somebody wants it delivered again.
    Column("due", Boolean, server_default=text("false"), nullable=False),
    PrimaryKeyConstraint("corpus_id", "webhook_id", "epoch", "answer_id"),
)
