"""What all tests share: models made once, and one real stack for all that do not break it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferway.registry.v1 import resources_pb2
from tests.testbed.eta import EtaModel, train
from tests.testbed.once import made_once
from tests.testbed.processes import ServiceProcess
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

MODELS = ("tiny", "shout", "fixed", "fussy", "mixed", "affine", "accumulator")
OWN_PROCESS = frozenset({"tiny", "affine"})
"""The others share one, since TensorFlow takes each process a second of a processor to start."""
STATE = {"accumulator": [resources_pb2.StateBinding(input="state", output="next_state", shape=[1])]}


EXIT_SECONDS = 30.0


def pytest_configure() -> None:
    """Lets Ctrl-C reach what tests start: a shell that runs the tests in the background has all of them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before -m chooses: who shares the stack of the session is `alone`, since two of them would take longer."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker("alone")


def pytest_sessionfinish(exitstatus: int) -> None:
    """Ends the process soon after the summary, whatever a failed test left behind.

    The collection of a grpc.aio server that was not stopped can wait forever for its poller thread, and a red run
    must not look like a hanging one.
    """
    guard = threading.Timer(EXIT_SECONDS, os._exit, (exitstatus,))
    guard.daemon = True
    guard.start()


@pytest.fixture(scope="session")
def eta(tmp_path_factory: pytest.TempPathFactory) -> EtaModel:
    """The arrival model of the examples, hardly trained; made once, since that takes half a minute."""
    return train(tmp_path_factory.mktemp("eta"), "--days", "4", "--epochs", "4")


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of SavedModels that tests.testbed.savedmodels describes."""

    def make(directory: Path) -> None:
        command = [sys.executable, "-m", "tests.testbed.savedmodels", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]

    return made_once(tmp_path_factory, "saved-models", make)


@pytest.fixture(scope="session")
def stack(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Registry, one worker and gateway as real processes, with MODELS ready. Not to be broken: it is shared."""
    settings = {"inference": {"INFERWAY_INFERENCE_MAX_MESSAGE_BYTES": str(64 * 1024 * 1024)}}
    with Stack(tmp_path_factory.mktemp("stack"), settings=settings) as running:
        for model in MODELS:
            alias = "champion" if model == "affine" else ""
            isolation = resources_pb2.ISOLATION_PROCESS if model in OWN_PROCESS else resources_pb2.ISOLATION_GROUP
            config = resources_pb2.VersionConfig(isolation=isolation, state=STATE.get(model))
            publish(running.registry.target, model, saved_models / model, alias, config)
        for model in MODELS:
            running.gateway.wait_serving(f"model/{model}")
        yield running


@pytest.fixture(scope="session")
def native_gateway(stack: Stack) -> Iterator[ServiceProcess]:
    """Another gateway before the workers of `stack`, with the native transport."""
    gateway = stack.another_gateway("native-gateway", TRANSPORT="native")
    gateway.start()
    try:
        for model in MODELS:
            gateway.wait_serving(f"model/{model}")
        yield gateway
    finally:
        gateway.end()


@pytest.fixture(params=["grpcio", "native"])
def gateway(request: pytest.FixtureRequest, stack: Stack) -> ServiceProcess:
    """A gateway of each transport in turn: what clients see must not depend on it."""
    if request.param == "grpcio":
        return stack.gateway
    native: ServiceProcess = request.getfixturevalue("native_gateway")
    return native
