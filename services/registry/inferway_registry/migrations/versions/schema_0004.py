"""Rollouts: where they stand, what gateways counted for them, and how that went; match rules of endpoints.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the tables, and the column; endpoints that are there already have no rules."""
    op.add_column("endpoints", sa.Column("match_rules", sa.JSON(), nullable=False, server_default="[]"))
    _make_rollouts()
    op.create_table(
        "rollout_reports",
        *_of_rollout("rollout_reports"),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "number", "gateway", name="pk_rollout_reports"),
    )
    op.create_table(
        "rollout_samples",
        *_of_rollout("rollout_samples"),
        sa.Column("sampled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sample", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "number", "sampled_at", name="pk_rollout_samples"),
    )


def _make_rollouts() -> None:
    op.create_table(
        "rollout_numbers",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name="pk_rollout_numbers"),
    )
    op.create_table(
        "rollouts",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("create_revision", sa.BigInteger(), nullable=False),
        sa.Column("rollout", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "number", name="pk_rollouts"),
        sa.UniqueConstraint("create_revision", name="uq_rollouts_create_revision"),
    )
    active = sa.text("active")
    op.create_index(
        "ix_rollouts_active_endpoint",
        "rollouts",
        ["endpoint"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )


def _of_rollout(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    return (
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint", "number"], ["rollouts.endpoint", "rollouts.number"], name=f"fk_{table}_rollout"
        ),
    )
