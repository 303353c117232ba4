"""What operators choose: bounds of a version's serving, and which versions of a model stay loaded.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the two columns; whatever is there already has neither bounds nor a policy."""
    op.add_column("versions", sa.Column("serving_options", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("models", sa.Column("version_policy", sa.JSON(), nullable=False, server_default="{}"))
