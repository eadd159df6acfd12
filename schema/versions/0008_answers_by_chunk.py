"""Finds the answers that rest on a chunk in the index alone.

Revision: 0008, after 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "answer_citation_by_chunk",
        "answer_citation",
        ["corpus_id", "chunk_id", "answer_id"],
        postgresql_include=["ref", "cited_epoch", "rested_epoch"],
    )
    op.drop_index(op.f("answer_citation_corpus_id_chunk_id_answer_id_idx"), table_name="answer_citation")


def downgrade() -> None:
    op.create_index(
        op.f("answer_citation_corpus_id_chunk_id_answer_id_idx"),
        "answer_citation",
        ["corpus_id", "chunk_id", "answer_id"],
    )
    op.drop_index("answer_citation_by_chunk", table_name="answer_citation")
