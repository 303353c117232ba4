"""What a runner is: one copy of one version, wherever it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inferway.errors import InferwayError
from inferway_inference.runtimes.base import CPU, Placement
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """What a runner shall load, and how."""

    runtime: str
    path: Path
    threads: int
    """Threads that one operation may use; 0 means all cores."""
    low_priority: bool
    """Until `promote`: others serve meanwhile."""
    placement: Placement = field(default=CPU)


@dataclass(slots=True)
class Outcome:
    """How a call ended: outputs, or an error. Outputs are views, valid only while the callback runs."""

    outputs: Sequence[Array] = ()
    error: InferwayError | None = None
    started_ns: int = 0
    ended_ns: int = 0


Done = Callable[[Outcome], None]
"""Hears of the end of a call, on the event loop: a future for each call would cost more than the call."""


class Runner(Protocol):
    """One copy of one version.

    1. `load` is called once, and everything else but `stop` only after it.
    2. At most `slots` calls may be outstanding; of these `callers` are computed at once. Whoever calls sees to that.
    3. `done` of a call is called exactly once, on the event loop, and never from within `call`.
    4. If the copy ends by itself, every outstanding call fails with RunnerCrashed; then `ended` says why, and `on_exit`
       is called once. None of that happens after `stop`.
    """

    name: str
    on_exit: Callable[[InferwayError], None] | None
    ended: InferwayError | None

    @property
    def pid(self) -> int:
        """The process that computes."""

    @property
    def slots(self) -> int:
        """Calls that may be outstanding at most."""

    @property
    def outstanding(self) -> int:
        """Calls without an outcome."""

    @property
    def oldest_call(self) -> float:
        """When the oldest outstanding call began, on the event loop's clock; infinite if there is none."""

    async def load(self, order: LoadOrder) -> tuple[Signature, ...]:
        """What the loaded version can be asked; raises the runtime's own error, or VersionLoadFailed."""

    def beside(self) -> Runner:
        """An empty runner in the same place, to compare two ways of running a version."""

    def promote(self) -> None:
        """It serves from now on, and no longer at low priority."""

    def set_callers(self, callers: int) -> None:
        """How many calls are computed at once; one until this is called, and none while another copy is tried."""

    def call(
        self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
    ) -> None:
        """Computes `outputs` (positions) of `signature` (position).

        Raises OSError when there is no memory for the inputs, and RunnerCrashed when the copy has ended.
        """

    def memory_bytes(self) -> int:
        """Memory that the copy takes; 0 if unknown."""

    def kill(self) -> None:
        """Ends a copy that hangs, as a crash would, and with it whatever else is in its process."""

    async def stop(self, *, by_force: bool = False) -> None:
        """Gives back all that the copy has. May be called again."""
