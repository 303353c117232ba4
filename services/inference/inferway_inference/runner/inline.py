"""A version that computes in the front itself, for tiny footprints: no process, no copies, and no shelter from it.

Calls go to threads of their own, so that the event loop never waits for a model: how long a call takes may depend on
its data, so no measurement of earlier ones promises that the next one ends. A crash of the model is one of the worker.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from inferway.errors import InferwayError, ModelFailed, RunnerCrashed
from inferway_inference.runner.base import Done, LoadOrder, Outcome
from inferway_inference.runner.host import MAX_CALLERS, cores, resident_bytes
from inferway_inference.runner.model import Model, typed
from inferway_inference.runner.priority import lower_thread
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array

_Work = Callable[[], None]


class InlineRunner:
    """A `Runner` (see base)."""

    def __init__(self, name: str) -> None:
        """`name` is for logs."""
        self.name = name
        self.on_exit: Callable[[InferwayError], None] | None = None
        self.ended: InferwayError | None = None
        self.pid = os.getpid()
        self.slots = min(cores(), MAX_CALLERS) + 1
        self._model: Model | None = None
        self._loop = asyncio.get_running_loop()
        self._work = SimpleQueue[_Work | None]()
        self._callers = 0
        self._calls: dict[int, tuple[float, Done]] = {}
        self._last_call = 0
        self._grown_bytes = 0

    @property
    def outstanding(self) -> int:
        """As the interface says."""
        return len(self._calls)

    @property
    def oldest_call(self) -> float:
        """As the interface says."""
        return next((began for began, _ in self._calls.values()), math.inf)

    async def load(self, order: LoadOrder) -> tuple[Signature, ...]:
        """As the interface says."""
        loading: asyncio.Future[Model] = self._loop.create_future()
        before = resident_bytes(self.pid)
        threading.Thread(target=self._load, args=(order, loading), name=f"load {self.name}").start()
        self._model = await loading
        self._grown_bytes = max(0, resident_bytes(self.pid) - before)
        self.set_callers(1)
        return self._model.signatures

    def beside(self) -> InlineRunner:
        """As the interface says."""
        return InlineRunner(self.name)

    def promote(self) -> None:
        """Only the loading thread was of low priority."""

    def set_callers(self, callers: int) -> None:
        """As the interface says."""
        for _ in range(callers, self._callers):
            self._work.put(None)
        for _ in range(self._callers, callers):
            threading.Thread(target=_work_off, args=(self._work,), name=f"call {self.name}", daemon=True).start()
        self._callers = callers

    def call(
        self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
    ) -> None:
        """As the interface says."""
        del traceparent
        model = self._model
        if model is None or self.ended is not None:
            raise RunnerCrashed("the version is not loaded")
        self._last_call += 1
        number = self._last_call
        self._calls[number] = (self._loop.time(), done)
        self._work.put(lambda: self._tell(self._finish, number, _compute(model, signature, inputs, outputs)))

    def memory_bytes(self) -> int:
        """What the worker grew by when the version was loaded."""
        return self._grown_bytes

    def kill(self) -> None:
        """Nothing can end a thread: the copy is given up, and its calls with it."""
        if self.ended is None and self._model is not None:
            self.ended = RunnerCrashed("the model computed for too long and was given up")
            self._loop.call_soon(self._crash, self.ended)

    async def stop(self, *, by_force: bool = False) -> None:
        """As the interface says; a call that hangs keeps its thread and the model until it returns."""
        del by_force
        self.on_exit = None
        model, self._model = self._model, None
        if model is not None:
            self.set_callers(0)
            self._give_up(RunnerCrashed("the version was unloaded"))
            threading.Thread(target=model.close, name=f"unload {self.name}").start()

    def _load(self, order: LoadOrder, loading: asyncio.Future[Model]) -> None:
        if order.low_priority:
            lower_thread()
        try:
            model = Model.load(order)
        except InferwayError as error:
            self._tell(_fail, loading, error)
        else:
            self._tell(_deliver, loading, model)

    def _tell(self, act: Callable[..., None], *arguments: object) -> None:
        """On the event loop, unless that has ended meanwhile."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *arguments)

    def _finish(self, number: int, outcome: Outcome) -> None:
        _, done = self._calls.pop(number, (0.0, None))
        if done is not None:
            done(outcome)

    def _crash(self, error: InferwayError) -> None:
        self._give_up(error)
        if self.on_exit is not None:
            self.on_exit(error)

    def _give_up(self, error: InferwayError) -> None:
        for number in list(self._calls):
            _, done = self._calls.pop(number)
            done(Outcome(error=error))


def _work_off(work: SimpleQueue[_Work | None]) -> None:
    while (step := work.get()) is not None:
        step()


def _compute(model: Model, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...]) -> Outcome:
    try:
        computed = model.compute(signature, [_whole(array) for array in inputs], outputs)
    except Exception as error:  # noqa: BLE001 - a model may raise anything; it fails this call alone
        return Outcome(error=typed(error, ModelFailed))
    arrays = [Array(one.datatype, one.shape, (bytes(one.parts[0]),)) for one in computed.outputs]
    return Outcome(arrays, None, computed.started_ns, computed.ended_ns)


def _whole(array: Array) -> Array:
    """The parts joined: a runtime wants its inputs in one piece."""
    return array if len(array.parts) == 1 else Array(array.datatype, array.shape, (b"".join(array.parts),))


def _deliver(loading: asyncio.Future[Model], model: Model) -> None:
    if loading.cancelled():
        threading.Thread(target=model.close, name="unload").start()
    else:
        loading.set_result(model)


def _fail(loading: asyncio.Future[Model], error: InferwayError) -> None:
    if not loading.cancelled():
        loading.set_exception(error)
