"""A generation beside the serving one, and a cut-over that commits notice.

Revision: 0003, after 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("corpus", sa.Column("generation_id", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE corpus SET generation_id = g.id FROM index_generation g "
        "WHERE g.corpus_id = corpus.id AND g.state = 'serving'"
    )
    op.alter_column("corpus", "generation_id", nullable=False)
    # The generation says it, and the next one may say something else.
    op.drop_column("corpus", "embedding")
    op.add_column("index_generation", sa.Column("verified_epoch", sa.BigInteger(), nullable=True))
    op.add_column("index_generation", sa.Column("problem", sa.Text(), nullable=True))
    _state_is_one_of("building", "serving", "standby", "retired")
    op.drop_index("index_generation_serving", table_name="index_generation")
    _at_most_one("index_generation_one_serving", "state = 'serving'")
    _at_most_one("index_generation_one_beside", "state IN ('building', 'standby')")
    op.create_table(
        "dropped_collection",
        sa.Column("corpus_id", sa.BigInteger(), nullable=False),
        sa.Column("generation_id", sa.BigInteger(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("embedding", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("dropped_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("corpus_id", "generation_id", name=op.f("dropped_collection_pkey")),
    )


def downgrade() -> None:
    op.drop_table("dropped_collection")
    op.drop_constraint("index_generation_one_beside", "index_generation")
    op.drop_constraint("index_generation_one_serving", "index_generation")
    op.create_index(
        "index_generation_serving",
        "index_generation",
        ["corpus_id"],
        unique=True,
        postgresql_where=sa.text("state = 'serving'"),
    )
    # What stands beside cannot be kept: nothing would keep it current.
    op.execute("UPDATE index_generation SET state = 'retired' WHERE state IN ('building', 'standby')")
    _state_is_one_of("building", "serving", "retired")
    op.drop_column("index_generation", "problem")
    op.drop_column("index_generation", "verified_epoch")
    op.add_column("corpus", sa.Column("embedding", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.execute(
        "UPDATE corpus SET embedding = g.embedding FROM index_generation g "
        "WHERE g.corpus_id = corpus.id AND g.id = corpus.generation_id"
    )
    op.alter_column("corpus", "embedding", nullable=False)
    op.drop_column("corpus", "generation_id")


def _state_is_one_of(*states: str) -> None:
    op.drop_constraint(op.f("index_generation_state_check"), "index_generation")
    among = ", ".join(f"'{state}'" for state in states)
    op.create_check_constraint(op.f("index_generation_state_check"), "index_generation", f"state IN ({among})")


def _at_most_one(name: str, condition: str) -> None:
    """Deferred, because a cut-over swaps two generations in one statement."""
    op.create_exclude_constraint(
        name,
        "index_generation",
        ("corpus_id", "="),
        where=sa.text(condition),
        using="btree",
        deferrable=True,
        initially="DEFERRED",
    )
