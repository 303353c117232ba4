"""Rollouts of good and bad versions under load, each with its figures: for tests, and for `benchmarks.rollouts`."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
SETTLING_SECONDS, IDLE_SECONDS = 60.0, 0.04
DISTURBED = 0.01
"""From this part of the processors on, what a machine's host takes is no longer noise for a p99 of milliseconds."""


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
class Window:
    """What callers met for some seconds."""

    callers: Callers
    stolen: float
    """The part of this machine's processors that its host gave to others meanwhile."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What callers met, window by window: without copies, then with copies to a version whose process is stopped."""

    pairs: Sequence[tuple[Window, Window]]
    compared: int
    """Copies that were answered, in all windows; of what was sent before the process was stopped."""
    dropped: int

    @property
    def quiet(self) -> Sequence[tuple[Window, Window]]:
        """Pairs in which the host left the machine alone."""
        return [pair for pair in self.pairs if max(window.stolen for window in pair) <= DISTURBED]

    def milliseconds(self, share: float) -> tuple[float, float]:
        """The median over quiet pairs, or all if there is none, without copies and with them."""
        alone, beside = (
            statistics.median(window.callers.percentile(share) for window in windows) * 1e3
            for windows in zip(*(self.quiet or self.pairs), strict=True)
        )
        return alone, beside

    def __str__(self) -> str:
        """In one line."""
        figures = " and ".join(
            f"p{share * 100:.0f} {beside:.2f} beside {alone:.2f} ms"
            for share in (0.5, 0.99)
            for alone, beside in [self.milliseconds(share)]
        )
        failures = sum((beside.callers.failures for _, beside in self.pairs), Counter[str]())
        return (
            f"shadow whose process is stopped: {figures} without copies, medians of {len(self.quiet)} pairs of windows "
            f"(of {len(self.pairs)}; in the others the host took more than {DISTURBED:.0%} of the processors), "
            f"{self.compared} copies compared, {self.dropped} dropped, failed calls {dict(failures)}"
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


async def stopped_shadow(scene: Scene, seconds: float, pairs: int) -> Shadowed:
    """Copies of all calls go to a version whose process is stopped, again and again, with as long without copies.

    One such comparison says little where a p99 is wanted to half a millisecond. Ends with so many quiet pairs, or after
    three times as many.
    """
    _, version = await publish_pair(scene, "shadowed", "affine", "affine")
    done = Shadowed([], 0, 0)
    async with (
        control(scene.stack.registry.target) as registry,
        calling(scene.stack.gateway.target, "shadowed", scene.rate) as callers,
    ):
        stable = await _lone_worker(scene, callers)
        while len(done.quiet) < pairs and len(done.pairs) < 3 * pairs:
            alone = await _window(callers, int(scene.rate * seconds))
            name = await registry.start("shadowed", shadow(version))
            await registry.until(name, {State.STATE_RUNNING})
            others = set(await asyncio.to_thread(scene.stack.workers[0].children)) - {stable}
            with _stopped(others):
                beside = await _window(callers, int(scene.rate * seconds))
                mirror = (await registry.get(name)).mirrors[0]
            await registry.act("Abort", name)
            await registry.until(name, {State.STATE_ROLLED_BACK})
            done = Shadowed([*done.pairs, (alone, beside)], done.compared + mirror.pairs, done.dropped + mirror.dropped)
    return done


async def _lone_worker(scene: Scene, callers: Callers) -> psutil.Process:
    """The process that answers, once no other has anything to do any more: nothing is loaded or prepared."""
    async with asyncio.timeout(SETTLING_SECONDS):
        while True:
            processes = await asyncio.to_thread(scene.stack.workers[0].children)
            before = {process: _work(process) for process in processes}
            await callers.ends(int(2 * scene.rate))
            busy = [process for process in processes if _work(process) - before[process] > IDLE_SECONDS]
            if len(busy) == 1:
                return busy[0]


async def _window(callers: Callers, calls: int) -> Window:
    """What the next calls meet, and not what this program does: it works before, and collects no garbage meanwhile."""
    gc.collect()
    gc.disable()
    try:
        await callers.ends(calls // 10)
        callers.met.clear()
        before, began = _stolen_seconds(), callers.now()
        await callers.ends(calls, timeout_seconds=SETTLING_SECONDS)
        stolen = (_stolen_seconds() - before) / (callers.now() - began) / (psutil.cpu_count() or 1)
    finally:
        gc.enable()
    return Window(Callers(list(callers.met)), stolen)


def _stolen_seconds() -> float:
    return float(psutil.cpu_times().steal)


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
    """Seconds of a processor that it took; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


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
