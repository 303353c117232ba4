"""Opens the database, brings its schema up to date, and runs transactions on it.

All mutations of all registries lock the counters' row first, so they run one after another: revisions and sequence
numbers are in commit order, and a check made in a mutation still holds when it commits.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import URL, Connection, event, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from inferway.errors import StorageFull, StoreUnavailable
from inferway_registry.store import schema
from inferway_registry.store.migrate import migrate
from inferway_registry.store.reader import Reader
from inferway_registry.store.writer import Writer

BUSY_SECONDS = 5.0
"""How long a transaction waits for its turn before the store counts as unavailable, unless said otherwise."""
_FAULTS_OF_OURS = (IntegrityError, ProgrammingError, DataError)


class Store:
    """Transactions on one database."""

    def __init__(self, engine: AsyncEngine, busy_seconds: float) -> None:
        self._engine = engine
        self._busy_seconds = busy_seconds
        if engine.dialect.name == "sqlite":
            self._reads, self._writes = engine, engine.execution_options(begin="BEGIN IMMEDIATE")
        else:
            self._reads, self._writes = engine.execution_options(isolation_level="REPEATABLE READ"), engine
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: URL, busy_seconds: float = BUSY_SECONDS) -> Store:
        """Connects and migrates; the driver is async. Raises StoreUnavailable, DatabaseTooNew, ArgumentError."""
        engine = _engine(url, busy_seconds)
        try:
            with _store_errors():
                if engine.dialect.name == "sqlite":
                    await _use_wal(engine, busy_seconds)
                await migrate(engine)
        except BaseException:
            await engine.dispose()
            raise
        return cls(engine, busy_seconds)

    async def close(self) -> None:
        """Closes every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        """A transaction that sees one moment of the database. Raises StoreUnavailable."""
        with _store_errors():
            async with self._reads.begin() as connection:
                yield Reader(connection)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Writer]:
        """A transaction that no other mutation overlaps; commits unless the block raises.

        Raises StoreUnavailable or StorageFull; nothing was written then, unless the connection broke while committing.
        """
        async with self._in_turn():
            with _store_errors():
                async with self._writes.begin() as connection:
                    await connection.execute(select(schema.counters.c.id).with_for_update())
                    yield Writer(connection)

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """Queues this process's mutations here, where waiting costs no connection and no thread."""
        try:
            async with asyncio.timeout(self._busy_seconds):
                await self._turn.acquire()
        except TimeoutError as error:
            raise StoreUnavailable("the registry is busy with other changes") from error
        try:
            yield
        finally:
            self._turn.release()


@contextmanager
def _store_errors() -> Iterator[None]:
    """Tells what the database cannot do now from what we did wrong."""
    try:
        yield
    except _FAULTS_OF_OURS:
        raise
    except DBAPIError as error:
        if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StorageFull("the registry's disk is full; free space on it, or push less") from error
        raise StoreUnavailable("the registry's database cannot be reached") from error
    except (OSError, PoolTimeoutError) as error:
        raise StoreUnavailable("the registry's database cannot be reached") from error


def _engine(url: URL, busy_seconds: float) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        arguments = {"timeout": busy_seconds, "command_timeout": 30}
        return create_async_engine(url, pool_pre_ping=True, pool_timeout=busy_seconds, connect_args=arguments)
    engine = create_async_engine(url, pool_timeout=busy_seconds, connect_args={"timeout": busy_seconds})
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions late and without a lock; we begin them ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _use_wal(engine: AsyncEngine, busy_seconds: float) -> None:
    """Switches the file's journal, once and for all.

    While others open the same new file, SQLite refuses at once, whatever its busy timeout.
    """
    async with asyncio.timeout(busy_seconds):
        while not await _switched_to_wal(engine):  # noqa: ASYNC110 - another process gives no event
            await asyncio.sleep(random.uniform(0.005, 0.02))  # noqa: S311 - not a secret


async def _switched_to_wal(engine: AsyncEngine) -> bool:
    try:
        async with engine.execution_options(begin="SELECT 1").connect() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    except OperationalError as error:
        if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(str(connection.get_execution_options().get("begin", "BEGIN")))
