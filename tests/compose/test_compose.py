"""The compose stack, built and run as a user does: a model goes in, answers come out, a killed container comes back.

Needs Docker. Run by `make test-compose`, outside `make test`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testbed.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("GATEWAY_GRPC_PORT", "GATEWAY_HTTP_PORT", "GATEWAY_METRICS_PORT", "REGISTRY_PORT")
BUILD_SECONDS = 1500
KILL_CHILD_OF_INIT = 'kill -9 "$(cat /proc/1/task/1/children)"'
"""A crash as Docker sees one: `docker kill` counts as a wish of the operator, after which nothing is restarted."""

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(BUILD_SECONDS + 300)]


class Stack:
    """The compose project, on ports of its own, so that a running inferway is not in the way."""

    def __init__(self) -> None:
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.environment = {**os.environ, **self.ports, "COMPOSE_PROJECT_NAME": "inferway-test"}
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        self.command = ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]

    def compose(self, *arguments: str, timeout_seconds: float = 120) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
        assert done.returncode == 0, f"{arguments}: {(done.stdout + done.stderr)[-4000:]}"
        return done.stdout

    def inspect(self, service: str) -> dict[str, Any]:
        container = self.compose("ps", "--quiet", service).strip()
        shown = subprocess.run(["docker", "inspect", container], capture_output=True, check=True)
        return dict(json.loads(shown.stdout)[0])

    def healthy(self, service: str) -> bool:
        return bool(self.inspect(service)["State"]["Health"]["Status"] == "healthy")

    def inferway(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command against the published ports."""
        addresses = {
            "INFERWAY_GATEWAY": f"127.0.0.1:{self.ports['GATEWAY_GRPC_PORT']}",
            "INFERWAY_REGISTRY": f"127.0.0.1:{self.ports['REGISTRY_PORT']}",
        }
        return subprocess.run(
            [sys.executable, "-m", "inferway_cli", *arguments],
            env={**os.environ, **addresses},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def predict(self) -> float:
        """One made-up row through the gateway; raises AssertionError if it is not answered."""
        done = self.inferway("predict", "tiny", "--json")
        assert done.returncode == 0, done.stderr
        return float(json.loads(done.stdout)["outputs"]["y"][0][0])


def eventually(condition: Callable[[], bool], what: str, timeout_seconds: float = 90) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(1)


@pytest.fixture(scope="module")
def compose_stack(saved_models: Path) -> Iterator[Stack]:
    """The three services, built from this checkout, with the model `tiny` pushed."""
    if shutil.which("docker") is None:
        pytest.fail("docker is not installed; `make test-compose` needs it")
    stack = Stack()
    stack.compose("build", timeout_seconds=BUILD_SECONDS)
    try:
        stack.compose("up", "--detach", timeout_seconds=300)
        for service in ("registry", "inference", "gateway"):
            eventually(lambda service=service: stack.healthy(service), f"{service} is healthy")  # type: ignore[misc]
        pushed = stack.inferway("push", "tiny", str(saved_models / "tiny"), "--wait")
        assert pushed.returncode == 0, pushed.stderr
        yield stack
    finally:
        sys.stdout.write(stack.compose("logs", "--no-color", "--tail", "40"))
        stack.compose("down", "--volumes", "--timeout", "20")


def test_a_pushed_model_answers(compose_stack: Stack) -> None:
    """Registry, worker and gateway find each other by the addresses in .env and docker-compose.yml."""
    assert compose_stack.predict() == compose_stack.predict()


def test_ready_is_served_over_http(compose_stack: Stack) -> None:
    """Load balancers and people ask there first."""
    port = compose_stack.ports["GATEWAY_HTTP_PORT"]

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("service", ["registry", "inference", "gateway"])
def test_containers_run_without_root(compose_stack: Stack, service: str) -> None:
    """A hole in a parser must not be a hole in the machine."""
    assert compose_stack.compose("exec", "-T", service, "id", "-u").strip() == "10001"


@pytest.mark.parametrize("service", ["registry", "gateway"])
def test_only_the_worker_has_tensorflow(compose_stack: Stack, service: str) -> None:
    """Small images start and move fast."""
    listing = compose_stack.compose("exec", "-T", service, "sh", "-c", "ls /opt/inferway/lib/python3*/site-packages")

    assert not {"keras", "tensorflow"} & set(listing.split())


@pytest.mark.parametrize("service", ["inference", "registry", "gateway"])
def test_a_killed_service_comes_back_with_what_it_knew(compose_stack: Stack, service: str) -> None:
    """The machine's out-of-memory killer asks nobody."""
    before = compose_stack.predict()
    started = compose_stack.inspect(service)["State"]["StartedAt"]

    compose_stack.compose("exec", "-T", service, "sh", "-c", f"{KILL_CHILD_OF_INIT} || true")
    eventually(lambda: compose_stack.inspect(service)["State"]["StartedAt"] != started, f"{service} starts again")
    eventually(lambda: compose_stack.healthy(service), f"{service} is healthy again")
    eventually(lambda: compose_stack.inferway("predict", "tiny").returncode == 0, "predictions go on")

    assert compose_stack.predict() == before


def test_predictions_go_on_without_the_registry(compose_stack: Stack) -> None:
    """Traffic never waits for the control plane, and a restarted gateway starts from its own snapshot."""
    before = compose_stack.predict()
    compose_stack.compose("stop", "registry")
    try:
        assert compose_stack.predict() == before

        compose_stack.compose("restart", "gateway")
        eventually(lambda: compose_stack.inferway("predict", "tiny").returncode == 0, "the new gateway answers")
    finally:
        compose_stack.compose("start", "registry")
    eventually(lambda: compose_stack.healthy("registry"), "the registry is healthy again")


def test_stopping_drains_instead_of_killing(compose_stack: Stack) -> None:
    """Exit code 0 means that SIGTERM was heard and everything in progress was answered."""
    compose_stack.compose("stop", "gateway", "inference", "registry")

    codes = {name: compose_stack.inspect(name)["State"]["ExitCode"] for name in ("gateway", "inference", "registry")}
    assert codes == {"gateway": 0, "inference": 0, "registry": 0}
