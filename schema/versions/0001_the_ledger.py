"""The ledger: corpora, documents, chunks, commits, index generations.

Revision: 0001, the first
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Chunk ids start above the largest ref of a retrieval, so that a number in a citation marker is either.
    op.execute("CREATE SEQUENCE chunk_id_seq START WITH 100001")
    op.execute("CREATE SEQUENCE document_id_seq")
    op.create_table(
        "chunk",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("born_epoch", sa.BigInteger(), nullable=False),
        sa.Column("died_epoch", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("touched_epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("corpus_id", "id", name=op.f("chunk_pkey")),
    )
    op.create_index(op.f("chunk_corpus_id_content_hash_idx"), "chunk", ["corpus_id", "content_hash"], unique=False)
    op.create_index(op.f("chunk_corpus_id_document_id_idx"), "chunk", ["corpus_id", "document_id"], unique=False)
    op.create_index(
        op.f("chunk_corpus_id_touched_epoch_id_idx"),
        "chunk",
        ["corpus_id", "touched_epoch", "id"],
        unique=False,
    )
    op.create_table(
        "corpus",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("horizon", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("payload_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_committed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("embedding", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("filterable", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("retention_s", sa.BigInteger(), nullable=True),
        sa.Column("verdict_ttl_ms", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("corpus_pkey")),
        sa.UniqueConstraint("name", name=op.f("corpus_name_key")),
    )
    op.create_table(
        "document",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("alive", sa.Boolean(), nullable=False),
        sa.Column("acl", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("touched_epoch", sa.BigInteger(), nullable=False),
        sa.Column("metadata_epoch", sa.BigInteger(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("corpus_id"), "="),
            (sa.column("key"), "="),
            where=sa.text("alive"),
            deferrable=True,
            initially="DEFERRED",
            using="btree",
            name="document_living_key",
        ),
        sa.PrimaryKeyConstraint("corpus_id", "id", name=op.f("document_pkey")),
    )
    op.create_index(op.f("document_corpus_id_key_idx"), "document", ["corpus_id", "key"], unique=False)
    op.create_index(
        op.f("document_corpus_id_touched_epoch_idx"), "document", ["corpus_id", "touched_epoch"], unique=False
    )
    op.create_table(
        "document_version",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("document_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("born_epoch", sa.BigInteger(), nullable=False),
        sa.Column("died_epoch", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("uri", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("acl", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("chunk_ids", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint("corpus_id", "document_id", "version", name=op.f("document_version_pkey")),
    )
    op.create_index(
        op.f("document_version_corpus_id_key_version_idx"),
        "document_version",
        ["corpus_id", "key", "version"],
        unique=False,
    )
    op.create_table(
        "embedding",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("generation_id", sa.BigInteger(), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("corpus_id", "generation_id", "chunk_id", name=op.f("embedding_pkey")),
    )
    op.create_table(
        "ledger",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ledger_one_row_check")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("ledger_pkey")),
    )
    op.create_table(
        "commit_log",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("summary", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("corpus_id", "epoch", name=op.f("commit_log_pkey")),
    )
    op.create_index(
        op.f("commit_log_corpus_id_committed_at_idx"),
        "commit_log",
        ["corpus_id", "committed_at"],
        unique=False,
    )
    op.create_index(
        "commit_log_idempotency_key",
        "commit_log",
        ["corpus_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "index_generation",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("embedding", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("applied_epoch", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leader_term", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('building', 'serving', 'retired')", name=op.f("index_generation_state_check")),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpus.id"], name=op.f("index_generation_corpus_id_fkey")),
        sa.PrimaryKeyConstraint("corpus_id", "id", name=op.f("index_generation_pkey")),
        sa.UniqueConstraint("collection", name=op.f("index_generation_collection_key")),
    )
    op.create_index(
        "index_generation_serving",
        "index_generation",
        ["corpus_id"],
        unique=True,
        postgresql_where=sa.text("state = 'serving'"),
    )
    op.execute("INSERT INTO ledger DEFAULT VALUES")
    # Vectors do not compress; trying costs time on every insert.
    op.execute("ALTER TABLE embedding ALTER COLUMN vector SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DROP SEQUENCE chunk_id_seq")
    op.execute("DROP SEQUENCE document_id_seq")
    op.drop_index(
        "index_generation_serving",
        table_name="index_generation",
        postgresql_where=sa.text("state = 'serving'"),
    )
    op.drop_table("index_generation")
    op.drop_index(
        "commit_log_idempotency_key",
        table_name="commit_log",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index(op.f("commit_log_corpus_id_committed_at_idx"), table_name="commit_log")
    op.drop_table("commit_log")
    op.drop_table("ledger")
    op.drop_table("embedding")
    op.drop_index(op.f("document_version_corpus_id_key_version_idx"), table_name="document_version")
    op.drop_table("document_version")
    op.drop_index(op.f("document_corpus_id_touched_epoch_idx"), table_name="document")
    op.drop_index(op.f("document_corpus_id_key_idx"), table_name="document")
    op.drop_table("document")
    op.drop_table("corpus")
    op.drop_index(op.f("chunk_corpus_id_touched_epoch_id_idx"), table_name="chunk")
    op.drop_index(op.f("chunk_corpus_id_document_id_idx"), table_name="chunk")
    op.drop_index(op.f("chunk_corpus_id_content_hash_idx"), table_name="chunk")
    op.drop_table("chunk")
