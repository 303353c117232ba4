"""Rollouts of good and bad versions under load, each with its figures: for tests, and for `benchmarks.rollouts`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

import psutil
from onnx import helper

from inferway.registry.v1 import resources_pb2, rollouts_pb2
from inferway_inference.runtimes.fake import EXTRA, FILE
from tests.testbed import onnx_models
from tests.testbed.publishing import publish
from tests.testbed.rollouts import BACK, WIDTH, Callers, State, calling, canary, control, shadow
from tests.testbed.stack import Stack

SLOW_SECONDS, QUICK_SECONDS = 0.2, 0.002
MIN_UNITS = 50


@dataclass(frozen=True, slots=True)
class Scene:
    """Where rollouts happen."""

    stack: Stack
    models: Path
    rate: float = 200.0
    """Calls a second on each endpoint."""
    share: int = 500
    """Of a bad candidate, in basis points."""
    isolation: resources_pb2.Isolation.ValueType = resources_pb2.ISOLATION_UNSPECIFIED
    """Of versions that leave their process alone: in a group all of them need TensorFlow once."""


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
class Doomed:
    """What became of a candidate that cannot be loaded."""

    arms: Mapping[str, int]
    failures: Mapping[str, int]
    reason: str

    def __str__(self) -> str:
        """In one line."""
        return f"crashes on load: {dict(self.arms)} answers, {dict(self.failures)} failed calls. {self.reason}"


@dataclass(frozen=True, slots=True)
class Aborted:
    """What became of a candidate that somebody took back."""

    seconds: float
    """From the command to the beginning of the last call that went to it."""
    failures: Mapping[str, int]

    def __str__(self) -> str:
        """In one line."""
        return f"aborted: nothing any more after {self.seconds:.2f} s, failed calls {dict(self.failures)}"


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What callers met without copies, and with copies to a version whose process is stopped."""

    alone: Callers
    callers: Callers
    mirror: rollouts_pb2.MirrorFigures

    def __str__(self) -> str:
        """In one line."""
        figures = " beside ".join(
            f"p50 {met.percentile(0.5) * 1e3:.2f} and p99 {met.percentile(0.99) * 1e3:.2f} ms"
            for met in (self.callers, self.alone)
        )
        return (
            f"shadow whose process is stopped: {figures} without copies, {self.mirror.pairs} pairs, "
            f"{self.mirror.dropped} copies dropped, failed calls {dict(self.callers.failures)}"
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


@dataclass(frozen=True, slots=True)
class Survived:
    """What became of a good candidate whose lone worker was killed, and came back with the stable version first."""

    state: int
    reason: str
    failures: Mapping[str, int]
    seconds_alone: float
    """How long users of the stable version were answered again, and those of the candidate not; infinite: for good."""

    def __str__(self) -> str:
        """In one line."""
        return (
            f"its worker killed: the stable version was back {self.seconds_alone:.1f} s before it; "
            f"{rollouts_pb2.Rollout.State.Name(self.state)}, failed calls {dict(self.failures)}. {self.reason}"  # type: ignore[arg-type]
        )


async def publish_pair(scene: Scene, endpoint: str, stable: str, candidate: str) -> tuple[str, str]:
    """Publishes both as versions of a model; its endpoint stays with the first. Returns their names."""
    first = await asyncio.to_thread(_publish, scene, endpoint, stable)
    await asyncio.to_thread(scene.stack.gateway.wait_serving, f"model/{endpoint}")
    async with control(scene.stack.registry.target) as registry:
        await registry.hold(endpoint, first)
    return first, await asyncio.to_thread(_publish, scene, endpoint, candidate)


async def bad_candidate(scene: Scene, kind: str, seconds: float = 60.0) -> Ended:
    """Gives a candidate of that kind a share, until the registry has taken it back."""
    endpoint = f"bad-{kind}"
    _, version = await publish_pair(scene, endpoint, "affine", kind)
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, endpoint, scene.rate) as callers,
    ):
        await callers.ends(int(scene.rate))
        name = await registry.start(endpoint, canary(version, [(scene.share, seconds)], min_units=MIN_UNITS))
        await registry.until(name, BACK, timeout_seconds=seconds + 30)
        known_at = callers.now()
        rollout = await registry.until(name, {State.STATE_ROLLED_BACK})
        await callers.ends(int(scene.rate))
    first, last = callers.span("v2")
    return Ended(kind, last - first, callers.failures.total(), known_at - first, rollout.reason)


async def doomed_candidate(scene: Scene) -> Doomed:
    """A candidate whose process ends whenever it is called, as it is while it warms up."""
    _, version = await publish_pair(scene, "doomed", "affine", "fatal")
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, "doomed", scene.rate) as callers,
    ):
        await callers.ends(int(scene.rate))
        name = await registry.start("doomed", canary(version, [(scene.share, 1.0)], min_units=MIN_UNITS))
        rollout = await registry.until(name, {State.STATE_FAILED}, timeout_seconds=120)
        await callers.ends(int(scene.rate))
    return Doomed(callers.arms(), callers.failures, rollout.reason)


async def stopped_shadow(scene: Scene, seconds: float) -> Shadowed:
    """Copies of all calls go to a version whose process is stopped; callers beside the same time without copies."""
    _, version = await publish_pair(scene, "shadowed", "affine", "affine")
    async with control(scene.stack.registry.target) as registry:
        async with calling(scene.stack.gateway.target, "shadowed", scene.rate) as alone:
            await alone.ends(int(scene.rate))
            alone.met.clear()
            runners = {runner: _work(runner) for runner in scene.stack.workers[0].children()}
            await alone.ends(int(scene.rate * seconds), timeout_seconds=seconds + 30)
            stable = max(runners, key=lambda runner: _work(runner) - runners[runner])
        async with calling(scene.stack.gateway.target, "shadowed", scene.rate) as callers:
            name = await registry.start("shadowed", shadow(version))
            await registry.until(name, {State.STATE_RUNNING})
            with _stopped(set(scene.stack.workers[0].children()) - {stable}):
                callers.met.clear()
                await callers.ends(int(scene.rate * seconds), timeout_seconds=seconds + 30)
                rollout = await registry.get(name)
        await registry.act("Abort", name)
        await registry.until(name, {State.STATE_ROLLED_BACK})
    return Shadowed(alone, callers, rollout.mirrors[0])


async def aborted_candidate(scene: Scene) -> Aborted:
    """Half of all calls go to a candidate until somebody aborts its rollout."""
    _, version = await publish_pair(scene, "aborted", "affine", "affine")
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, "aborted", scene.rate) as callers,
    ):
        await callers.ends(int(scene.rate))
        name = await registry.start("aborted", canary(version, [(5000, 600.0)]))
        await registry.until(name, {State.STATE_RUNNING})
        await callers.until_arm("v2")
        asked = callers.now()
        await registry.act("Abort", name)
        await registry.until(name, {State.STATE_ROLLED_BACK})
        await callers.ends(int(scene.rate))
    return Aborted(max(0.0, callers.span("v2")[1] - asked), callers.failures)


async def good_candidate(scene: Scene, steps: tuple[tuple[int, float], ...] = ((500, 2.0), (5000, 2.0))) -> Arrived:
    """Brings a version that is as good as the one before to everybody."""
    _, version = await publish_pair(scene, "good", "affine", "affine")
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, "good", scene.rate) as callers,
    ):
        await callers.ends(int(scene.rate))
        name, began = await registry.start("good", canary(version, steps, min_units=MIN_UNITS)), callers.now()
        rollout = await registry.until(name, {State.STATE_SUCCEEDED}, timeout_seconds=120)
        seconds = callers.now() - began
        await callers.ends(int(scene.rate))
    return Arrived(rollout.state, callers.failures, callers.arms(), callers.met[-1].arm, seconds)


async def killed_worker(scene: Scene, seconds: float = 12.0) -> Survived:
    """Half of all calls go to a good candidate that takes longer to load than the stable version."""
    _, version = await publish_pair(scene, "killed", "quick", "affine")
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, "killed", scene.rate) as callers,
    ):
        await callers.ends(int(scene.rate))
        name = await registry.start("killed", canary(version, [(5000, seconds)], min_units=MIN_UNITS, output_margin=0))
        await registry.until(name, {State.STATE_RUNNING}, timeout_seconds=120)
        await callers.until_arm("v2")
        await asyncio.to_thread(scene.stack.workers[0].kill)
        killed_at = callers.now()
        scene.stack.workers[0].start()
        rollout = await registry.until(name, {State.STATE_SUCCEEDED, *BACK}, timeout_seconds=120)
    later = [met for met in callers.met if met.begun > killed_at and met.arm]
    back = {arm: min((met.ended for met in later if met.arm == arm), default=inf) for arm in ("v1", "v2")}
    return Survived(rollout.state, rollout.reason, callers.failures, back["v2"] - back["v1"])


@contextmanager
def _stopped(processes: Collection[psutil.Process]) -> Iterator[None]:
    """These are stopped while the body runs, or until their worker finds out and replaces them."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _work(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _publish(scene: Scene, model: str, kind: str) -> str:
    target = scene.stack.registry.target
    seconds = {"slow": SLOW_SECONDS, "quick": QUICK_SECONDS}.get(kind)
    if seconds is None:
        isolation = resources_pb2.ISOLATION_PROCESS if kind == "fatal" else scene.isolation
        return publish(target, model, scene.models / kind, config=resources_pb2.VersionConfig(isolation=isolation)).name
    folder = _idle_model(scene.stack.directory / kind, seconds)
    return publish(target, model, folder, runtime=resources_pb2.RUNTIME_ONNX).name


def _idle_model(folder: Path, seconds: float) -> Path:
    """The line as affine draws it, after so long without a processor's work; workers need WORKER_SETTINGS."""
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
        "batch_seconds": seconds,
    }
    (folder / EXTRA).mkdir(exist_ok=True)
    (folder / EXTRA / FILE).write_text(json.dumps({"signatures": {"serving_default": signature}}))
    return folder
