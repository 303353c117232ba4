"""All copies of one version: calls go to the least busy one, and a copy that crashes is replaced while others serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from inferway.errors import InferwayError, RunnerCrashed
from inferway_inference.runner.base import Done, Runner
from inferway_inference.tensors import Array

_LOG = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.5, 60.0)
"""Between attempts to replace a copy; the first follows at once."""
STABLE_SECONDS = 60.0
"""A set without a failure for longer begins its backoff anew."""
LEAVE_SECONDS = 60.0
"""How long a copy that is no longer wanted may take for the calls it has."""
_LOOK_SECONDS = 0.02


class RunnerSet:
    """Has at least one copy until `on_exit` is called, which says that the last one crashed."""

    def __init__(self, runners: Sequence[Runner], callers: int, start: Callable[[], Awaitable[Runner]]) -> None:
        """Takes over loaded runners, each to compute `callers` calls at once; `start` makes another ready one."""
        self._start, self._callers = start, callers
        self._runners: list[Runner] = []
        self._leaving: list[Runner] = []
        self._wanted = len(runners)
        self.ended: InferwayError | None = None
        """Why the last copy ended, once it has."""
        self.on_exit: Callable[[InferwayError], None] | None = None
        """Called once, when the last copy has ended by itself and all outstanding calls have failed."""
        self.on_crash: Callable[[], None] | None = None
        """Called when any copy has ended by itself."""
        self.on_capacity: Callable[[int], None] | None = None
        """Called with the new capacity when it changed."""
        self._failures = 0
        self._failed_at = 0.0
        self._changed = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._stopping = False
        for runner in runners:
            self._adopt(runner)

    @property
    def capacity(self) -> int:
        """Calls that can be computed at once now."""
        return len(self._runners) * self._callers

    @property
    def copies(self) -> Sequence[Runner]:
        """Those that serve now."""
        return self._runners

    @property
    def pid(self) -> int:
        """Of the first copy's process; 0 if there is none."""
        return self._runners[0].pid if self._runners else 0

    def call(
        self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
    ) -> None:
        """Computes `outputs` (positions) of `signature` (position); `done` is called once, never from within.

        Raises OSError when there is no memory for the inputs, and RunnerCrashed when no copy is left.
        """
        for runner in self._by_load():
            try:
                return runner.call(signature, inputs, outputs, done, traceparent)
            except RunnerCrashed:
                continue  # it is about to be noticed
        raise RunnerCrashed("the model's process has ended")

    def memory_bytes(self) -> int:
        """Of all copies."""
        return sum(runner.memory_bytes() for runner in (*self._runners, *self._leaving))

    def kill_oldest(self) -> None:
        """Ends the copy whose call has been computing for longest."""
        if self._runners:
            min((*self._runners, *self._leaving), key=lambda runner: runner.oldest_call).kill()

    def resize(self, instances: int) -> None:
        """Wants so many copies from now on; they come and go in the background while the others serve."""
        self._wanted = max(1, instances)
        self._changed.set()
        self._tend()

    async def stop(self, *, by_force: bool = False) -> None:
        """Ends every copy. May be called again."""
        self._stopping = True
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        runners = (*self._runners, *self._leaving)
        await asyncio.gather(*(runner.stop(by_force=by_force) for runner in runners))
        self._runners, self._leaving = [], []

    def _by_load(self) -> Sequence[Runner]:
        runners = self._runners
        return runners if len(runners) == 1 else sorted(runners, key=lambda runner: runner.outstanding)

    def _adopt(self, runner: Runner) -> None:
        runner.set_callers(self._callers)
        self._runners.append(runner)
        runner.on_exit = lambda error: self._crashed(runner, error)
        if runner.ended is not None:
            self._crashed(runner, runner.ended)
        else:
            self._tell_capacity()

    def _crashed(self, runner: Runner, error: InferwayError) -> None:
        if self.on_crash is not None:
            self.on_crash()
        if runner in self._leaving:
            return
        if self._runners == [runner]:
            self.ended = error
            if self.on_exit is not None:
                self.on_exit(error)
            return
        _LOG.error("a copy of a version crashed", extra={"version": runner.name, "cause": error.message})
        self._runners.remove(runner)
        self._leaving.append(runner)
        self._failed()
        self._tell_capacity()
        self._tend()

    def _tell_capacity(self) -> None:
        if self.on_capacity is not None:
            self.on_capacity(self.capacity)

    def _tend(self) -> None:
        if not self._stopping and (self._tending is None or self._tending.done()):
            self._tending = asyncio.create_task(self._reach_wanted(), name="copies")

    async def _reach_wanted(self) -> None:
        while self._leaving or len(self._runners) != self._wanted:
            self._changed.clear()
            while len(self._runners) > self._wanted:
                self._leaving.append(self._runners.pop())
                self._tell_capacity()
            while self._leaving:
                await self._end(self._leaving[0])
            if len(self._runners) < self._wanted:
                await self._pause()
                await self._add()

    async def _add(self) -> None:
        try:
            runner = await self._start()
        except InferwayError as error:
            self._failed()
            _LOG.error("a copy of a version cannot be loaded", extra={"cause": error.message, "reason": error.reason})
        else:
            self._adopt(runner)

    async def _end(self, runner: Runner) -> None:
        """A copy that nobody calls any more."""
        loop = asyncio.get_running_loop()
        leaves_at = loop.time() + LEAVE_SECONDS
        while runner.outstanding and runner.ended is None and loop.time() < leaves_at:  # noqa: ASYNC110 - too rare for more
            await asyncio.sleep(_LOOK_SECONDS)
        await runner.stop()
        self._leaving.remove(runner)

    def _failed(self) -> None:
        now = asyncio.get_running_loop().time()
        self._failures = 1 if now - self._failed_at > STABLE_SECONDS else self._failures + 1
        self._failed_at = now

    async def _pause(self) -> None:
        """After a second failure in a row, unless another number of copies is wanted meanwhile."""
        if self._failures > 1 and len(self._runners) < self._wanted:
            seconds = min(BACKOFF_SECONDS[0] * 2.0 ** (self._failures - 2), BACKOFF_SECONDS[1])
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return
