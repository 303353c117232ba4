"""The first schema.

Revision ID: 0001
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes every table, and the one row of counters with the database's epoch."""
    _make_catalogue()
    _make_endpoints()
    _make_uploads()
    _make_logs()
    op.bulk_insert(
        sa.table("counters", sa.column("id"), sa.column("epoch"), sa.column("revision"), sa.column("sequence")),
        [{"id": 1, "epoch": uuid.uuid4().hex, "revision": 0, "sequence": 0}],
    )


def _time(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _make_catalogue() -> None:
    op.create_table(
        "version_numbers",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_version_numbers"),
    )
    op.create_table(
        "models",
        sa.Column("model", sa.String(length=63), nullable=False),
        _time("create_time"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", name="pk_models"),
    )
    op.create_table(
        "versions",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("runtime", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("signatures", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        _time("create_time"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.model"], name="fk_versions_model"),
        sa.PrimaryKeyConstraint("model", "number", name="pk_versions"),
    )
    op.create_table(
        "aliases",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("alias", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"], name="fk_aliases_version"),
        sa.ForeignKeyConstraint(["model"], ["models.model"], name="fk_aliases_model"),
        sa.PrimaryKeyConstraint("model", "alias", name="pk_aliases"),
    )


def _make_endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        _time("create_time"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name="pk_endpoints"),
    )
    op.create_table(
        "arms",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("arm", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("weight_basis_points", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint"], ["endpoints.endpoint"], name="fk_arms_endpoint"),
        sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"], name="fk_arms_version"),
        sa.PrimaryKeyConstraint("endpoint", "position", name="pk_arms"),
    )
    op.create_index("ix_arms_model_number", "arms", ["model", "number"], unique=False)


def _make_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("upload", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("runtime", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        _time("expire_time"),
        sa.PrimaryKeyConstraint("upload", name="pk_uploads"),
    )
    op.create_index("ix_uploads_expire_time", "uploads", ["expire_time"], unique=False)
    op.create_table(
        "blob_uses",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("used_by", sa.String(length=160), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "used_by", name="pk_blob_uses"),
    )
    op.create_index("ix_blob_uses_used_by", "blob_uses", ["used_by"], unique=False)


def _make_logs() -> None:
    op.create_table(
        "counters",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_counters"),
    )
    op.create_table(
        "events",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        _time("event_time"),
        sa.Column("resource", sa.String(length=160), nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_events"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        _time("audit_time"),
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("method", sa.String(length=160), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("resource", sa.String(length=160), nullable=False),
        sa.Column("action", sa.Integer(), nullable=False),
        sa.Column("etag_before", sa.String(length=32), nullable=False),
        sa.Column("etag_after", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_audit_time", "audit", ["audit_time"], unique=False)
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        _time("answered_at"),
        sa.PrimaryKeyConstraint("request_id", name="pk_requests"),
    )
    op.create_index("ix_requests_answered_at", "requests", ["answered_at"], unique=False)
