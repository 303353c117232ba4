"""The database and the ledger on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, text

from inferway.errors import RequestIdReused, StoreUnavailable
from inferway_registry.ledger import Call, Change, Ledger
from inferway_registry.resources import ServingOptions, StreamPolicy, VersionConfig, VersionPolicy
from inferway_registry.store import schema
from inferway_registry.store.migrate import DatabaseTooNew
from inferway_registry.store.sql import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD_MANIFEST = '{"digest": "", "artifacts": []}'
OLD_CONFIG = '{"forbid_nan_inputs": [], "idempotent": null, "max_batch_rows": 8, "description": "", "labels": {}}'


@pytest.fixture
def url(tmp_path: Path) -> URL:
    """A database that is not there yet."""
    return URL.create("sqlite+aiosqlite", database=str(tmp_path / "registry.db"))


@pytest.fixture
async def store(url: URL) -> AsyncIterator[Store]:
    """An open one."""
    store = await Store.open(url)
    yield store
    await store.close()


def connect(url: URL) -> Connection:
    """A plain connection beside the store's."""
    return create_engine(url.set(drivername="sqlite")).connect()


async def test_the_migrations_make_exactly_the_schema(store: Store, url: URL):
    """Queries are written against the one, databases are made by the other."""
    with connect(url) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        connection.engine.dispose()

    assert differences == []


async def test_stores_that_open_at_once_migrate_once(url: URL, caplog: pytest.LogCaptureFixture):
    """Two registries on one PostgreSQL start together; an epoch must not be given twice."""
    with caplog.at_level(logging.INFO):
        stores = await asyncio.gather(*(Store.open(url) for _ in range(4)))
    epochs = set()
    for each in stores:
        async with each.reading() as rows:
            epochs.add((await rows.counters()).epoch)
        await each.close()

    assert len(epochs) == 1
    steps = [vars(record)["schema"] for record in caplog.records if record.message == "migrated the database"]
    assert len(steps) == len(set(steps)) > 0


async def test_an_older_database_keeps_what_it_has(url: URL):
    """The registry of last week left models and versions that know nothing of today's columns."""
    await (await Store.open(url)).close()
    with connect(url) as connection:
        connection.exec_driver_sql("ALTER TABLE models DROP COLUMN version_policy")
        connection.exec_driver_sql("ALTER TABLE versions DROP COLUMN serving_options")
        connection.exec_driver_sql("ALTER TABLE endpoints DROP COLUMN stream_policy")
        connection.exec_driver_sql("ALTER TABLE endpoints DROP COLUMN match_rules")
        for table in ("split_reports", "rollout_reports", "rollout_samples", "rollouts", "rollout_numbers"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        connection.exec_driver_sql("INSERT INTO models VALUES ('m', '2026-01-01 00:00:00.000000', 7)")
        row = ("m", 1, 1, 1, OLD_MANIFEST, "[]", OLD_CONFIG, "2026-01-01 00:00:00.000000", 7)
        connection.exec_driver_sql("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.exec_driver_sql("INSERT INTO endpoints VALUES ('m', 'm', 1, 1, 0, '2026-01-01 00:00:00.000000', 7)")
        connection.commit()
        connection.engine.dispose()

    store = await Store.open(url)
    async with store.reading() as rows:
        model, version, endpoint = await rows.model("m"), await rows.version("m", 1), await rows.endpoint("m")
    await store.close()

    assert model is not None
    assert version is not None
    assert endpoint is not None
    assert (endpoint.stream_policy, endpoint.match_rules) == (StreamPolicy.UNSPECIFIED, ())
    assert (model.numbers, model.version_policy) == ((1,), VersionPolicy())
    assert (version.serving_options, version.config) == (ServingOptions(), VersionConfig(max_batch_rows=8))


async def test_a_newer_database_is_refused(url: URL):
    """An old program on a new schema would damage it."""
    await (await Store.open(url)).close()
    with connect(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
        connection.engine.dispose()

    with pytest.raises(DatabaseTooNew, match="9999"):
        await Store.open(url)


async def test_a_locked_database_is_unavailable_and_not_a_crash(url: URL):
    """A backup tool may hold the file; callers are told to retry."""
    store = await Store.open(url, busy_seconds=0.05)
    with connect(url) as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable):
            async with store.writing():
                pass
        connection.engine.dispose()
    await store.close()


async def test_a_failed_mutation_leaves_nothing(store: Store):
    """Neither its events nor its numbers."""
    ledger = Ledger(store, lambda: NOW, lambda: None)

    async def fail(change: Change) -> None:
        change.created("models/m")
        await change.rows.put_model("m", change.now, change.revision)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await ledger.apply(Call("p", "m"), fail)
    async with store.reading() as rows:
        assert (await rows.counters()).revision == 0
        assert await rows.model("m") is None
        assert await rows.events(0, 10) == []


async def test_a_mutation_is_finished_when_its_caller_goes_away(store: Store):
    """A cancelled call must not leave a commit in doubt, and everybody must learn of the change."""
    changed, entered, release = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ledger = Ledger(store, lambda: NOW, changed.set)

    async def slow(change: Change) -> None:
        entered.set()
        await release.wait()
        change.created("models/m")
        await change.rows.put_model("m", change.now, change.revision)

    caller = asyncio.ensure_future(ledger.apply(Call("p", "m"), slow))
    await entered.wait()
    caller.cancel()
    await asyncio.sleep(0)
    release.set()
    await ledger.close()

    assert changed.is_set()
    async with store.reading() as rows:
        assert await rows.model("m") is not None


async def test_answers_are_kept_for_a_day(store: Store):
    """Long enough for every retry, and no longer."""
    time = NOW
    ledger = Ledger(store, lambda: time, lambda: None)

    async def answer(text: str, digest: str = "digest") -> bytes:
        async def operation(_: Change) -> str:
            return text

        return await ledger.answer_once(Call("p", "m", "request", digest), operation, str.encode)

    assert await answer("first") == b"first"
    assert await answer("second") == b"first"
    with pytest.raises(RequestIdReused):
        await answer("third", digest="other")
    time = NOW + timedelta(hours=25)
    await ledger.forget_old_answers()
    assert await answer("fourth") == b"fourth"
