"""The tables. Alembic's migrations make them; a test holds the two together.

Whatever is only ever read with its row, and never searched, is JSON. Times are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Gives the time its zone."""
        del dialect
        return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)


counters = Table(
    "counters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)
"""One row. Every mutation locks it first, so that commits follow the order of their numbers."""

version_numbers = Table(
    "version_numbers",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("last_number", BigInteger, nullable=False),
)
"""Outlives its model: a version's name is never given twice, because caches everywhere trust it."""

models = Table(
    "models",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("create_time", UtcTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("version_policy", JSON, nullable=False, server_default="{}"),
)

versions = Table(
    "versions",
    metadata,
    Column("model", ForeignKey("models.model"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Integer, nullable=False),
    Column("runtime", Integer, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("signatures", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("serving_options", JSON, nullable=False, server_default="{}"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", ForeignKey("models.model"), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("number", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"], name="fk_aliases_version"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("salt", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("automatic", Boolean, nullable=False),
    Column("next_number", BigInteger, nullable=False),
    Column("create_time", UtcTime, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("stream_policy", Integer, nullable=False, server_default="0"),
    Column("match_rules", JSON, nullable=False, server_default="[]"),
)

arms = Table(
    "arms",
    metadata,
    Column("endpoint", ForeignKey("endpoints.endpoint"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("arm", String(63), nullable=False),
    Column("model", String(63), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("weight_basis_points", Integer, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"], name="fk_arms_version"),
    Index("ix_arms_model_number", "model", "number"),
)

rollout_numbers = Table(
    "rollout_numbers",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("last_number", BigInteger, nullable=False),
)
"""Outlives its endpoint: gateways count by the rollout's name, so none is given twice."""

rollouts = Table(
    "rollouts",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("active", Boolean, nullable=False),
    Column("create_revision", BigInteger, nullable=False, unique=True),
    Column("rollout", JSON, nullable=False),
    Index(
        "ix_rollouts_active_endpoint",
        "endpoint",
        unique=True,
        sqlite_where=text("active"),
        postgresql_where=text("active"),
    ),
)
"""`create_revision` orders those of all endpoints. At most one of an endpoint is active."""

rollout_reports = Table(
    "rollout_reports",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("gateway", String(64), primary_key=True),
    Column("reported_at", UtcTime, nullable=False),
    Column("report", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["endpoint", "number"], ["rollouts.endpoint", "rollouts.number"], name="fk_rollout_reports_rollout"
    ),
)
"""What each process of a gateway has counted, as it last said."""

rollout_samples = Table(
    "rollout_samples",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sampled_at", UtcTime, primary_key=True),
    Column("sample", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["endpoint", "number"], ["rollouts.endpoint", "rollouts.number"], name="fk_rollout_samples_rollout"
    ),
)
"""How the figures of a rollout went."""

split_reports = Table(
    "split_reports",
    metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("gateway", String(64), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("arms", JSON, nullable=False),
)
"""What each process of a gateway has counted of an endpoint without a rollout, as it last said."""

uploads = Table(
    "uploads",
    metadata,
    Column("upload", String(63), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("runtime", Integer, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Column("expire_time", UtcTime, nullable=False, index=True),
)

blob_uses = Table(
    "blob_uses",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("used_by", String(160), primary_key=True, index=True),
)
"""Which upload or version, by resource name, needs which content."""

events = Table(
    "events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_time", UtcTime, nullable=False),
    Column("resource", String(160), nullable=False),
    Column("action", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("principal", String(256), nullable=False),
    Column("details", JSON, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("audit_time", UtcTime, nullable=False, index=True),
    Column("principal", String(256), nullable=False),
    Column("method", String(160), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("resource", String(160), nullable=False),
    Column("action", Integer, nullable=False),
    Column("etag_before", String(32), nullable=False),
    Column("etag_after", String(32), nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("answered_at", UtcTime, nullable=False, index=True),
)
"""What mutations answered, so that a repeated one answers the same."""
