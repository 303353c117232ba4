"""The stateful example in the real stack: trained, pushed by the command, its state bound, its arithmetic NumPy's."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.eta import numpy_model
from examples.eta.drives import Town, record
from inferway.registry.v1 import watch_service_pb2
from inferway.registry.v1.resources_pb2 import StateBinding
from inferway.registry.v1.watch_service_pb2_grpc import WatchServiceStub
from inferway_chassis.channel import open_channel
from inferway_client import Client
from tests.testbed.eta import EtaModel
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.alone, pytest.mark.tensorflow, pytest.mark.slow]

BINDING = StateBinding(signature="serving_default", input="state", output="next_state", shape=[32])


def inferway(stack: Stack, *arguments: str) -> str:
    """What a command prints."""
    environment = {**os.environ, "INFERWAY_REGISTRY": stack.registry.target, "COLUMNS": "200"}
    command = [sys.executable, "-m", "inferway_cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def routed_state(stack: Stack, version: str) -> list[StateBinding]:
    """The state of a version in the routing snapshot, as soon as the snapshot has it."""
    request = watch_service_pb2.WatchRoutingRequest(watcher="test")
    async with open_channel(stack.registry.target) as channel:
        async for response in WatchServiceStub(channel).WatchRouting(request, timeout=20):
            for routed in response.snapshot.versions:
                if routed.model_version.name == version:
                    return list(routed.model_version.config.state)
    raise AssertionError


def test_the_example_learns_more_than_a_guess(eta: EtaModel):
    """Even from a few days: days that it never saw, against what a line of code can tell."""
    errors = re.findall(r"mean error on unseen days, (.*): ([\d.]+) minutes", eta.printed)
    found = {name: float(minutes) for name, minutes in errors}

    assert found.pop("model") < min(found["distance by speed now"], found["distance by speed so far"])


async def test_a_pushed_state_binding_reaches_gateways_and_people(stack: Stack, eta: EtaModel):
    """One line of inferway.yaml is all that a publisher writes."""
    pushed = inferway(stack, "push", "eta-bound", str(eta.saved_model), "--wait")
    shown = inferway(stack, "model", "eta-bound")
    told = json.loads(inferway(stack, "model", "eta-bound", "--json"))

    policy = json.loads(inferway(stack, "endpoint", "eta-bound", "--streams", "migrate", "--json"))

    assert pushed == "eta-bound version 1 is ready\n"
    assert (policy["streams"], policy["automatic"]) == ("migrate", True)
    assert "serving_default keeps FP32[32] a row: next_state -> state, at first zeros" in shown
    assert [entry["input"] for entry in told["versions"][0]["state_bindings"]] == ["state"]
    assert await routed_state(stack, "models/eta-bound/versions/1") == [BINDING]


async def test_tensorflow_computes_what_numpy_does(stack: Stack, eta: EtaModel):
    """Sessions are checked against NumPy, so the two must agree. Without a binding the state is an ordinary tensor."""
    publish(stack.registry.target, "eta-open", eta.saved_model)
    stack.gateway.wait_serving("model/eta-open")
    generator = np.random.default_rng(3)
    state = expected_state = numpy_model.initial_state(eta.weights, 16)

    async with Client(stack.gateway.target) as client:
        for _ in range(30):
            x = generator.uniform(0, 3, (16, 6)).astype(np.float32)
            outputs = (await client.predict("eta-open", {"x": x, "state": state})).outputs
            expected, expected_state = numpy_model.step(eta.weights, x, expected_state)
            state = outputs["next_state"]
            np.testing.assert_allclose(outputs["eta_minutes"], expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(state, expected_state, rtol=1e-5, atol=1e-5)
    assert np.abs(state).max() > 0.01


async def test_drives_on_streams_get_what_numpy_computes_for_each(stack: Stack, eta: EtaModel):
    """The example as a whole: vehicles tell where they are, side by side, and each gets its own arrival."""
    inferway(stack, "push", "eta-drives", str(eta.saved_model), "--wait")
    stack.gateway.wait_serving("model/eta-drives")
    drives = record(Town.build(), range(1), vehicles=4, steps=20).features

    async with Client(stack.gateway.target) as client:
        answers = await asyncio.gather(*(answered(client, drive) for drive in drives))

    expected, _ = numpy_model.sessions(eta.weights, drives)
    np.testing.assert_allclose(np.stack(answers), expected, rtol=1e-5, atol=1e-5)


async def answered(client: Client, drive: NDArray[np.float32]) -> NDArray[np.float32]:
    """The minutes that a vehicle is told, step by step."""
    async with client.stream("eta-drives") as stream:
        results = [result.unwrap() async for result in stream.map({"x": x[None]} for x in drive)]
    assert {tuple(result.outputs) for result in results} == {("eta_minutes",)}
    return np.array([result.outputs["eta_minutes"].item() for result in results], np.float32)
