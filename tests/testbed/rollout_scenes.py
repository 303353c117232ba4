"""Rollouts of good and bad versions under load, each with its figures: for tests, and for `benchmarks.rollouts`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import helper

from inferway.registry.v1 import resources_pb2
from inferway_inference.runtimes.fake import EXTRA, FILE
from tests.testbed import onnx_models
from tests.testbed.publishing import publish
from tests.testbed.rollouts import BACK, WIDTH, State, calling, canary, control
from tests.testbed.stack import Stack

RATE = 200.0
"""Calls a second."""
SHARE = 500
"""Of the candidate, in basis points."""
SLOW_SECONDS = 0.2
MIN_UNITS = 50


@dataclass(frozen=True, slots=True)
class Scene:
    """Where rollouts happen."""

    stack: Stack
    models: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a bad candidate. Seconds are from its first answer or failure on."""

    kind: str
    seconds_to_zero: float
    """Until the last call that went to it was begun."""
    failures: int
    seconds_to_verdict: float
    """Until the controller knew."""
    reason: str

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.kind}: nothing any more after {self.seconds_to_zero:.1f} s, rolled back after "
            f"{self.seconds_to_verdict:.1f} s, {self.failures} failed calls. {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class Arrived:
    """What became of a good candidate."""

    state: int
    failures: Mapping[str, int]
    arms: Mapping[str, int]
    last_arm: str
    seconds: float

    def __str__(self) -> str:
        """In one line."""
        return f"good: everything after {self.seconds:.1f} s, {dict(self.arms)} answers, failed calls {self.failures}"


async def publish_pair(scene: Scene, endpoint: str, stable: str, candidate: str) -> tuple[str, str]:
    """Publishes both as versions of a model; its endpoint stays with the first. Returns their names."""
    first = _publish(scene, endpoint, stable)
    scene.stack.gateway.wait_serving(f"model/{endpoint}")
    async with control(scene.stack.registry.target) as registry:
        await registry.hold(endpoint, first)
    return first, _publish(scene, endpoint, candidate)


async def bad_candidate(scene: Scene, kind: str, seconds: float = 60.0) -> Ended:
    """Gives a candidate of that kind SHARE of RATE, until the registry has taken it back."""
    endpoint = f"bad-{kind}"
    _, version = await publish_pair(scene, endpoint, "affine", kind)
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, endpoint, RATE) as callers,
    ):
        await callers.ends(int(RATE))
        name = await registry.start(endpoint, canary(version, [(SHARE, seconds)], min_units=MIN_UNITS))
        await registry.until(name, BACK, timeout_seconds=seconds + 30)
        known_at = callers.now()
        rollout = await registry.until(name, {State.STATE_ROLLED_BACK})
        await callers.ends(int(RATE))
    first, last = callers.span("v2")
    return Ended(kind, last - first, callers.failures.total(), known_at - first, rollout.reason)


async def good_candidate(scene: Scene, steps: tuple[tuple[int, float], ...] = ((500, 2.0), (5000, 2.0))) -> Arrived:
    """Brings a version that is as good as the one before to everybody."""
    _, version = await publish_pair(scene, "good", "affine", "affine")
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, "good", RATE) as callers,
    ):
        await callers.ends(int(RATE))
        name, began = await registry.start("good", canary(version, steps, min_units=MIN_UNITS)), callers.now()
        rollout = await registry.until(name, {State.STATE_SUCCEEDED}, timeout_seconds=120)
        seconds = callers.now() - began
        await callers.ends(int(RATE))
    return Arrived(rollout.state, callers.failures, callers.arms(), callers.met[-1].arm, seconds)


def _publish(scene: Scene, model: str, kind: str) -> str:
    target = scene.stack.registry.target
    if kind != "slow":
        return publish(target, model, scene.models / kind).name
    return publish(target, model, _slow_model(scene.stack.directory / "slow"), runtime=resources_pb2.RUNTIME_ONNX).name


def _slow_model(folder: Path) -> Path:
    """The line as affine draws it, after SLOW_SECONDS without a processor's work; workers need WORKER_SETTINGS."""
    shape = (onnx_models.ROWS, WIDTH)
    graph = onnx_models.model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [onnx_models.tensor("x", shape=shape)],
        [onnx_models.tensor("y", shape=shape)],
    )
    onnx_models.save(graph, folder)
    tensors = ["FP32", [-1, WIDTH]]
    signature = {
        "inputs": {"x": tensors},
        "outputs": {"y": tensors},
        "operation": "affine",
        "factor": 2,
        "offset": 1,
        "batch_seconds": SLOW_SECONDS,
    }
    (folder / EXTRA).mkdir(exist_ok=True)
    (folder / EXTRA / FILE).write_text(json.dumps({"signatures": {"serving_default": signature}}))
    return folder
