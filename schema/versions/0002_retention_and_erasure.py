"""Retention and erasure: pins, erasures, and what the log keeps of a row whose content was erased.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("commit_log", sa.Column("digest", sa.LargeBinary(), nullable=True))
    op.add_column("commit_log", sa.Column("redacted_by", sa.BigInteger(), nullable=True))
    op.create_index(
        "chunk_removable",
        "chunk",
        ["corpus_id", "died_epoch", "id"],
        unique=False,
        postgresql_where=sa.text("died_epoch IS NOT NULL AND text IS NOT NULL"),
    )
    op.create_table(
        "pin",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpus.id"], name=op.f("pin_corpus_id_fkey")),
        sa.PrimaryKeyConstraint("corpus_id", "id", name=op.f("pin_pkey")),
    )
    op.execute("CREATE SEQUENCE erasure_id_seq")
    op.create_table(
        "erasure",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("keys", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("keys_too", sa.Boolean(), nullable=False),
        sa.Column("document_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("chunk_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("versions", sa.Integer(), nullable=False),
        sa.Column("redactions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("stores", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpus.id"], name=op.f("erasure_corpus_id_fkey")),
        sa.PrimaryKeyConstraint("corpus_id", "id", name=op.f("erasure_pkey")),
    )
    op.create_index(
        "erasure_pending",
        "erasure",
        ["corpus_id", "id"],
        unique=False,
        postgresql_where=sa.text("completed_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("erasure")
    op.execute("DROP SEQUENCE erasure_id_seq")
    op.drop_table("pin")
    op.drop_index("chunk_removable", table_name="chunk")
    op.drop_column("commit_log", "redacted_by")
    op.drop_column("commit_log", "digest")
