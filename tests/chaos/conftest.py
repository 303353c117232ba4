"""One stack for all scenarios: each leaves it as it found it, or the next one says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferway.registry.v1 import resources_pb2
from tests.testbed.processes import ServiceProcess
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

VERSION = "model/tiny@1"


@pytest.fixture(scope="session")
def shared_trio(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Registry, three workers and a gateway; `tiny` runs in the workers themselves, so that they start in a second."""
    with Stack(tmp_path_factory.mktemp("trio"), workers_count=3) as running:
        config = resources_pb2.VersionConfig(isolation=resources_pb2.ISOLATION_INLINE)
        model = saved_models / "litert" / "tiny"
        publish(running.registry.target, "tiny", model, config=config, runtime=resources_pb2.RUNTIME_LITERT)
        for worker in running.workers:
            worker.wait_serving(VERSION)
        running.gateway.wait_serving("model/tiny")
        yield running


@pytest.fixture(scope="session")
def shared_other_gateway(shared_trio: Stack) -> Iterator[ServiceProcess]:
    """A second gateway before the same workers."""
    gateway = shared_trio.another_gateway("other-gateway")
    gateway.start()
    try:
        gateway.wait_serving("model/tiny")
        yield gateway
    finally:
        gateway.end()


@pytest.fixture
def other_gateway(shared_other_gateway: ServiceProcess) -> ServiceProcess:
    """The shared one, up."""
    assert shared_other_gateway.alive
    return shared_other_gateway


@pytest.fixture
def trio(shared_trio: Stack) -> Stack:
    """The shared stack, with everything up."""
    assert [process.log.stem for process in shared_trio.processes if not process.alive] == []
    return shared_trio
