"""A worker under everything at once: every request is answered exactly once, with its own rows or a typed error."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from inferway.registry.v1.resources_pb2 import RUNTIME_LITERT
from inferway.status import from_status
from inferway.worker.v1 import worker_service_pb2 as pb
from tests.integration.inference.gateway_side import GatewaySide, envelope, tensor, values_of
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

SECONDS = float(os.environ.get("INFERWAY_ABUSE_SECONDS", "12"))
SEED = int(os.environ.get("INFERWAY_ABUSE_SEED", "20"))
IN_FLIGHT = 48
TINY, FUSSY = "models/tiny/versions/1", "models/fussy/versions/1"
CRASHED = frozenset({"RUNNER_CRASHED", "VERSION_NOT_READY"})
"""What any request may be told while its model's process is killed under it, and while it comes back."""

Check = Callable[[pb.Answer], bool]


class Counting(GatewaySide):
    """A link that also counts how often each id was answered."""

    def __init__(self, target: str) -> None:
        """Nothing was answered yet."""
        super().__init__(target)
        self.times = Counter[int]()
        self._writing = asyncio.Lock()

    async def send(self, *envelopes: pb.Envelope) -> None:
        """One frame; grpc writes one at a time."""
        async with self._writing:
            await super().send(*envelopes)

    async def cancel(self, *ids: int) -> None:
        """Calls requests back."""
        async with self._writing:
            await super().cancel(*ids)

    def _receive(self, message: pb.LinkResponse) -> None:
        self.times.update(answer.id for answer in message.answers.answers)
        super()._receive(message)


@dataclass(slots=True)
class Tally:
    """What came back."""

    right: Counter[str] = field(default_factory=Counter)
    crashed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)

    def note(self, kind: str, envelope_id: int, answer: pb.Answer, check: Check) -> None:
        """Checks one answer."""
        error = from_status(answer.error) if answer.HasField("error") else None
        if check(answer):
            self.right[kind] += 1
        elif error is not None and error.reason in CRASHED:
            self.crashed[kind] += 1
        else:
            told = f"{error.reason}: {error.message}" if error is not None else str(answer.outputs)[:200]
            self.wrong.append(f"{kind} {envelope_id}: {told}")


class Abuser:
    """Sends requests of every kind, seeded, and says what each must get."""

    def __init__(self, link: Counting, weights: dict[str, NDArray[np.float32]], swapped: str) -> None:
        """`weights` are those of the tiny model."""
        self.link, self.weights, self.swapped, self.tally = link, weights, swapped, Tally()
        self.chance, self.numbers = random.Random(SEED), np.random.default_rng(SEED)
        self.sent = 0

    async def run(self, seconds: float) -> None:
        """IN_FLIGHT at a time, for so long."""
        ends = asyncio.get_running_loop().time() + seconds

        async def one_after_the_other() -> None:
            while asyncio.get_running_loop().time() < ends:
                await self._one()

        await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))

    async def _one(self) -> None:
        kinds = {
            "valid": 10,
            "large": 1,
            "several": 4,
            "poison": 2,
            "expired": 1,
            "cancelled": 2,
            "wrong type": 1,
            "wrong rows": 1,
            "unknown version": 1,
            "unknown signature": 1,
            "swapped": 2,
        }
        [kind] = self.chance.choices(list(kinds), list(kinds.values()))
        self.sent += 1
        envelope_id = self.sent
        message, check = self._made(kind, envelope_id)
        if kind == "cancelled":
            self.tally.cancelled.add(envelope_id)
            await self.link.send(message)
            await self.link.cancel(envelope_id)
            return
        [answer] = await self.link.call(message)
        self.tally.note(kind, envelope_id, answer, check)

    def _made(self, kind: str, envelope_id: int) -> tuple[pb.Envelope, Check]:
        rows = {"large": 200, "several": self.chance.randint(2, 7)}.get(kind, 1)
        x = self.numbers.normal(size=(rows, 32)).astype("f4")
        fussy = self.numbers.uniform(0, 1000, (rows, 2)).astype("f4")
        right = self._answers_as_numpy(x)
        if kind == "poison":
            fussy[0, 1] = 1001.0
            return envelope(envelope_id, FUSSY, tensor("x", fussy)), refused("MODEL_FAILED")
        if kind in {"valid", "several"} and self.chance.random() < 0.3:  # neighbours of the poison
            return envelope(envelope_id, FUSSY, tensor("x", fussy)), lambda answer: same(answer, fussy)
        made: dict[str, tuple[pb.Envelope, Check]] = {
            "expired": (
                envelope(envelope_id, TINY, tensor("x", x), remaining_us=1),
                refused("DEADLINE_EXCEEDED", "WOULD_BE_LATE"),
            ),
            "wrong type": (envelope(envelope_id, TINY, tensor("x", x.astype("f8"))), refused("DATATYPE_MISMATCH")),
            "wrong rows": (envelope(envelope_id, TINY, tensor("x", x), rows=3), refused("INVALID_BATCH")),
            "unknown version": (
                envelope(envelope_id, "models/tiny/versions/99", tensor("x", x)),
                refused("VERSION_NOT_FOUND", "VERSION_NOT_READY", "NO_WORKER"),
            ),
            "unknown signature": (
                envelope(envelope_id, TINY, tensor("x", x), signature="other"),
                refused("UNKNOWN_SIGNATURE"),
            ),
            "swapped": (envelope(envelope_id, self.swapped, tensor("x", x)), right),
        }
        return made.get(kind, (envelope(envelope_id, TINY, tensor("x", x)), right))

    def _answers_as_numpy(self, x: NDArray[np.float32]) -> Check:
        hidden = np.maximum(x @ self.weights["w0"] + self.weights["b0"], 0)
        expected = hidden @ self.weights["w1"] + self.weights["b1"]
        return lambda answer: same(answer, expected)


def same(answer: pb.Answer, expected: NDArray[Any]) -> bool:
    """Every row is the one asked for."""
    return not answer.HasField("error") and np.allclose(values_of(answer), expected, atol=1e-4)


def refused(*reasons: str) -> Check:
    """An error with one of these reasons."""
    return lambda answer: answer.HasField("error") and from_status(answer.error).reason in reasons


async def kill_runners(stack: Stack, stop: asyncio.Event) -> int:
    """SIGKILL to one of the worker's runners every two seconds; returns how many."""
    chance, kills = random.Random(SEED), 0
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 2.0)
        except TimeoutError:
            runners = [child for child in stack.workers[0].children() if child.status() != psutil.STATUS_ZOMBIE]
            if runners:
                chance.choice(runners).kill()
                kills += 1
    return kills


async def swap(stack: Stack, model: Path, abuser: Abuser, stop: asyncio.Event) -> int:
    """Publishes version after version of another model; returns how many."""
    swaps = 0
    while not stop.is_set():
        version = await asyncio.to_thread(publish, stack.registry.target, "swapped", model, runtime=RUNTIME_LITERT)
        swaps += 1
        await asyncio.to_thread(stack.gateway.wait_serving, "model/swapped", 60.0)
        abuser.swapped = version.name
        try:
            await asyncio.wait_for(stop.wait(), 3.0)
        except TimeoutError:
            continue
    return swaps


async def test_under_every_abuse_at_once_each_request_is_answered_once_and_right(
    saved_models: Path, tmp_path: Path
) -> None:
    """Whatever neighbours, operators and the kernel do, a caller gets its own rows or is told why not."""
    with Stack(tmp_path) as stack:
        quick = saved_models / "litert" / "tiny"  # is back soon, and can be killed again
        publish(stack.registry.target, "fussy", saved_models / "fussy")
        for model in ("tiny", "swapped"):
            publish(stack.registry.target, model, quick, runtime=RUNTIME_LITERT)
        for model in ("tiny", "fussy", "swapped"):
            stack.gateway.wait_serving(f"model/{model}")
        weights = dict(np.load(saved_models / "tiny.npz"))
        async with Counting(stack.workers[0].target) as link:
            abuser, stop = Abuser(link, weights, "models/swapped/versions/1"), asyncio.Event()
            others = [
                asyncio.create_task(kill_runners(stack, stop)),
                asyncio.create_task(swap(stack, quick, abuser, stop)),
            ]
            await abuser.run(SECONDS)
            stop.set()
            kills, swaps = await asyncio.gather(*others)
            await link.half_close()
            await link.until(lambda: link.ended is not None)

    tally, times = abuser.tally, link.times
    print(f"{abuser.sent} requests, {kills} kills, {swaps} swaps; as asked: {dict(tally.right)}")
    print(f"told that the model's process ended: {dict(tally.crashed)}; cancelled: {len(tally.cancelled)}")
    assert not tally.wrong, tally.wrong[:10]
    assert [one for one in range(1, abuser.sent + 1) if times[one] != 1 and one not in tally.cancelled] == []
    assert max(times.values()) == 1
    assert min(tally.right[kind] for kind in ("valid", "large", "several", "poison", "expired", "swapped")) > 0
    assert kills > 0
