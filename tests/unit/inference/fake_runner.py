"""A runner without a model: it takes time on the event loop, and its tests decide when it crashes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from inferway.datatypes import Datatype
from inferway.errors import InferwayError, RunnerCrashed
from inferway_inference.runner.base import Done, LoadOrder, Outcome
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array

SIGNATURE = Signature.of(
    "serving_default", [TensorSpec("x", Datatype.FP32, (-1, 4))], [TensorSpec("y", Datatype.FP32, (-1, 4))]
)


class FakeRunner:
    """A `Runner` that answers its inputs after `seconds(rows, callers)`, or only when `finish` is called."""

    def __init__(self, seconds: Callable[[int, int], float] | None = None) -> None:
        """Loaded from the start. Without `seconds` calls wait for `finish`."""
        self.name = "fake"
        self.on_exit: Callable[[InferwayError], None] | None = None
        self.ended: InferwayError | None = None
        self.slots = 16
        self.pid = 0  # no process computes
        self.callers = 1
        self.stopped = asyncio.Event()
        self._seconds = seconds
        self._calls: list[tuple[Sequence[Array], Done, float]] = []
        self._computing = 0
        self._loop = asyncio.get_running_loop()

    @property
    def outstanding(self) -> int:
        """As the interface says."""
        return len(self._calls) + self._computing

    @property
    def oldest_call(self) -> float:
        """As the interface says."""
        return self._calls[0][2] if self._calls else math.inf

    async def load(self, order: LoadOrder) -> tuple[Signature, ...]:
        """As the interface says."""
        return (SIGNATURE,)

    def beside(self) -> FakeRunner:
        """As the interface says."""
        return FakeRunner(self._seconds)

    def promote(self) -> None:
        """As the interface says."""

    def set_callers(self, callers: int) -> None:
        """As the interface says."""
        self.callers = callers

    def call(
        self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
    ) -> None:
        """As the interface says."""
        if self.ended is not None:
            raise RunnerCrashed("it ended")
        self._calls.append((inputs, done, self._loop.time()))
        self._compute()

    def finish(self) -> None:
        """Answers the oldest call."""
        inputs, done, _ = self._calls.pop(0)
        done(Outcome(inputs))

    def memory_bytes(self) -> int:
        """As the interface says."""
        return 1000

    def kill(self) -> None:
        """As the interface says."""
        self.ended = RunnerCrashed("killed")
        while self._calls:
            _, done, _ = self._calls.pop(0)
            done(Outcome(error=self.ended))
        if self.on_exit is not None:
            self.on_exit(self.ended)

    async def stop(self, *, by_force: bool = False) -> None:
        """As the interface says."""
        self.stopped.set()

    def _compute(self) -> None:
        if self._seconds is None or not self._calls or self._computing >= self.callers:
            return
        inputs, done, _ = self._calls.pop(0)
        self._computing += 1
        seconds = self._seconds(inputs[0].shape[0], self.callers)
        self._loop.call_later(seconds, self._computed, inputs, done, seconds)

    def _computed(self, inputs: Sequence[Array], done: Done, seconds: float) -> None:
        self._computing -= 1
        whole = [Array(one.datatype, one.shape, (b"".join(one.parts),)) for one in inputs]
        done(Outcome(whole, None, 0, int(seconds * 1e9)))
        self._compute()
