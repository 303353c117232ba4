"""What open streams of an endpoint do when its arms change.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the column; endpoints that are there already leave it unset."""
    op.add_column("endpoints", sa.Column("stream_policy", sa.Integer(), nullable=False, server_default="0"))
