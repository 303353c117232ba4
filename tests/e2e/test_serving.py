"""How a model is served, as its operator sees and changes it: why, tune, policy, timing, against real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import aio

from inferway_client import Client
from tests.testbed.calls import model_infer, tiny_request, traffic
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

MODEL = "served"
REASONS = {"full", "idle", "deadline", "delay bound", "unbatched"}
ROWS = np.ones((1, 32), np.float32)


class Operator:
    """Somebody with the `inferway` command."""

    def __init__(self, registry: str) -> None:
        self._environment = {**os.environ, "INFERWAY_REGISTRY": registry, "COLUMNS": "80"}

    def __call__(self, *arguments: str) -> str:
        """Runs a command and returns what it prints; it must succeed."""
        command = [sys.executable, "-m", "inferway_cli", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def operator(stack: Stack, saved_models: Path) -> Iterator[Operator]:
    """The shared stack with a model of this module's own."""
    inferway = Operator(stack.registry.target)
    publish(stack.registry.target, MODEL, saved_models / "tiny")
    stack.gateway.wait_serving(f"model/{MODEL}")
    yield inferway
    inferway("delete", MODEL, "--yes")


async def in_thread(operator: Operator, *arguments: str) -> str:
    """A command beside the traffic of the test."""
    return await asyncio.to_thread(operator, *arguments)


async def test_both_doors_say_where_the_time_went(stack: Stack, operator: Operator) -> None:
    """Callers find out why an answer took long without a trace, whatever client they use."""
    request = tiny_request(ROWS, MODEL)
    request.parameters["inferway_timing"].bool_param = True
    async with aio.insecure_channel(stack.gateway.target) as channel, Client(stack.gateway.target) as client:
        parameters = (await model_infer(channel)(request, timeout=10)).parameters
        prediction = await client.predict(MODEL, {"x": ROWS}, timing=True)
    timing = prediction.timing

    assert parameters["inferway_version"].string_param == f"models/{MODEL}/versions/1"
    assert parameters["inferway_arm"].string_param == "v1"
    assert parameters["inferway_compute_us"].int64_param > 0
    assert parameters["inferway_dispatch_reason"].string_param in REASONS
    assert prediction.arm == "v1"
    assert timing is not None
    assert timing.compute_seconds > 0
    assert timing.batch_rows == 1
    assert timing.dispatch_reason in REASONS


async def test_a_policy_keeps_the_old_version_answering(stack: Stack, operator: Operator, saved_models: Path) -> None:
    """Going back to it takes no load; without the policy it would be gone."""
    assert "the latest 2" in await in_thread(operator, "policy", MODEL, "--latest", "2")
    publish(stack.registry.target, MODEL, saved_models / "tiny")
    await asyncio.to_thread(stack.workers[0].wait_serving, f"model/{MODEL}@2")

    async with traffic(stack.gateway.target, MODEL) as calls, Client(stack.gateway.target) as client:
        await calls.until("version 2", 20)
        pinned = [await client.predict(MODEL, {"x": ROWS}, version=number) for number in (1, 2)]

    assert [prediction.version for prediction in pinned] == [1, 2]
    shown = json.loads(await in_thread(operator, "model", MODEL, "--json"))
    assert [list(version["workers"].values()) for version in shown["versions"]] == [["READY"], ["READY"]]
    assert shown["version_policy"].startswith("the latest 2")


async def explanation(operator: Operator) -> dict[str, Any]:
    """What the only worker says of the newest version."""
    told = json.loads(await in_thread(operator, "why", MODEL, "--json"))
    (worker,) = told["workers"]
    assert "error" not in worker, worker["error"]
    return dict(worker["explanation"])


async def test_why_tells_what_was_learned_of_real_traffic(stack: Stack, operator: Operator) -> None:
    """An explanation is worth something only if it is of this model on this machine."""
    async with traffic(stack.gateway.target, MODEL, callers=16) as calls:
        await calls.until("version 2", 300)
        told = await explanation(operator)
        text = await in_thread(operator, "why", MODEL)

    assert told["status"]["plan"]["callers"] >= 1
    assert told["status"]["plan"]["trials"]
    assert all(int(point["samples"]) > 0 and point["compute_us"] > 0 for point in told["curves"][0]["points"])
    assert sum(int(link["share_rows"]) for link in told["credits"]) > 0
    assert len(told["decisions"]) > 10
    for decision in told["decisions"]:
        assert decision["reason"].removeprefix("DISPATCH_REASON_").lower().replace("_", " ") in REASONS
        assert decision["rows"] >= decision["requests"] >= 1
        assert decision["explanation"]
    assert "cannot be asked" not in text
    assert "In short: batching" in text


async def test_bounds_hold_while_it_serves_and_can_be_taken_back(stack: Stack, operator: Operator) -> None:
    """Tuning in production must cost no call and no reload."""
    own_choice = (await explanation(operator))["status"]["plan"]["max_batch_rows"]
    runners = {process.pid for process in stack.workers[0].children()}
    async with traffic(stack.gateway.target, MODEL, callers=16) as calls:
        await calls.until("version 2", 100)
        tuned = json.loads(await in_thread(operator, "tune", MODEL, "--max-batch-rows", "1", "--json"))
        await calls.until("version 2", 300)
        within = (await explanation(operator))["decisions"]
        back = json.loads(await in_thread(operator, "tune", MODEL, "--reset", "--json"))
        await calls.until("version 2", 100)

    assert tuned["bounds"][0] == {"bound": "max_batch_rows", "before": "auto", "after": "1", "w0": "1"}
    assert {decision["rows"] for decision in within} == {1}
    assert back["bounds"][0] == {"bound": "max_batch_rows", "before": "1", "after": "auto", "w0": str(own_choice)}
    assert calls.failures == {}
    assert runners <= {process.pid for process in stack.workers[0].children()}
