"""Run by Alembic for each upgrade, on the connection and in the transaction of `store/migrate.py`."""

from __future__ import annotations

import logging
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from inferway_registry.store.schema import metadata

_LOG = logging.getLogger("inferway_registry.migrations")


def _log_step(ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:
    del ctx, heads, run_args
    _LOG.info("migrated the database", extra={"schema": step.up_revision_id})


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    on_version_apply=_log_step,
)
context.run_migrations()
