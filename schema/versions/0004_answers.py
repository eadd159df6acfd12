"""Recorded answers, and the indexes that find what of them has died.

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answer",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("validated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("snapshot_epoch", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("validations", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("delivered_epoch", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reader", sa.Text(), nullable=False),
        sa.Column("labels", sa.ARRAY(sa.LargeBinary()), nullable=False),
        sa.PrimaryKeyConstraint("corpus_id", "id", name=op.f("answer_pkey")),
        sa.UniqueConstraint("corpus_id", "key", name=op.f("answer_corpus_id_key_key")),
    )
    op.create_index(op.f("answer_corpus_id_validated_at_idx"), "answer", ["corpus_id", "validated_at"])
    op.create_table(
        "answer_citation",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("answer_id", sa.BigInteger(), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=True),
        sa.Column("ref", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("cited_epoch", sa.BigInteger(), nullable=True),
        sa.Column("rested_epoch", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint(
            "corpus_id",
            "answer_id",
            "chunk_id",
            "ref",
            name=op.f("answer_citation_corpus_id_answer_id_chunk_id_ref_key"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(
        op.f("answer_citation_corpus_id_chunk_id_answer_id_idx"),
        "answer_citation",
        ["corpus_id", "chunk_id", "answer_id"],
    )
    op.create_index(
        "chunk_deaths",
        "chunk",
        ["corpus_id", "died_epoch", "id"],
        postgresql_where=sa.text("died_epoch IS NOT NULL"),
    )
    op.create_index(op.f("document_version_corpus_id_born_epoch_idx"), "document_version", ["corpus_id", "born_epoch"])


def downgrade() -> None:
    op.drop_index(op.f("document_version_corpus_id_born_epoch_idx"), table_name="document_version")
    op.drop_index("chunk_deaths", table_name="chunk")
    op.drop_table("answer_citation")
    op.drop_table("answer")
