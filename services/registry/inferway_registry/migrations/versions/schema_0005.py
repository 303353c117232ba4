"""What gateways counted of endpoints whose traffic is split by hand.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the table."""
    op.create_table(
        "split_reports",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("gateway", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("arms", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "gateway", name="pk_split_reports"),
    )
