"""Brings the schema up to date at start. Several processes may start at once: one migrates, the others wait."""

from __future__ import annotations

import logging

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

_LOG = logging.getLogger(__name__)
_LOCK = 0x1F3A7E5
"""Key of PostgreSQL's advisory lock; any constant that is ours."""


class DatabaseTooNew(Exception):
    """A newer inferway has used the database; this one does not know its schema."""


async def migrate(engine: AsyncEngine) -> None:
    """Applies what is missing, in one transaction under a lock; raises DatabaseTooNew."""
    async with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "inferway_registry:migrations")
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = set(MigrationContext.configure(connection).get_current_heads())
    if not current <= known:
        message = f"the database has schema {', '.join(sorted(current - known))} of a newer inferway; upgrade this one"
        raise DatabaseTooNew(message)
    _LOG.info("checking the database's schema", extra={"schema": sorted(current)})
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
