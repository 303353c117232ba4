"""A version that computes in a runner process: alone, or in a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferway.errors import InferwayError
from inferway_inference.runner.base import Done, LoadOrder
from inferway_inference.runner.host import RunnerHost
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array


class RunnerProcess:
    """A `Runner` (see base). The process ends with the last version in it."""

    def __init__(self, name: str, host: RunnerHost) -> None:
        """A place on `host`; `name` is for logs."""
        self.name = name
        self.on_exit: Callable[[InferwayError], None] | None = None
        self.ended: InferwayError | None = None
        self.callers = 1
        self._host = host
        self._model = host.admit(self)
        self._loaded = False
        self._grown_bytes = 0

    @classmethod
    async def start(cls, name: str) -> RunnerProcess:
        """In a new process of its own. Raises OSError."""
        return cls(name, await RunnerHost.start(name))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._host.pid

    @property
    def slots(self) -> int:
        """As the interface says."""
        return self._host.slots

    @property
    def outstanding(self) -> int:
        """As the interface says."""
        return self._host.outstanding(self._model)

    @property
    def oldest_call(self) -> float:
        """As the interface says."""
        return self._host.oldest_call(self._model)

    async def load(self, order: LoadOrder) -> tuple[Signature, ...]:
        """As the interface says."""
        before = self._host.memory_bytes()
        self._loaded = True
        try:
            signatures = await self._host.load(self._model, order)
        except InferwayError:
            self._loaded = False
            raise
        self._grown_bytes = max(0, self._host.memory_bytes() - before)
        return signatures

    def beside(self) -> RunnerProcess:
        """As the interface says."""
        return RunnerProcess(self.name, self._host)

    def promote(self) -> None:
        """As the interface says."""
        self._host.promote()

    def set_callers(self, callers: int) -> None:
        """As the interface says."""
        self.callers = callers
        self._host.tell_callers()

    def call(
        self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
    ) -> None:
        """As the interface says."""
        self._host.call(self._model, signature, inputs, outputs, done, traceparent)

    def memory_bytes(self) -> int:
        """Of the process, if the version is alone there; otherwise what the process grew by when it was loaded."""
        return self._host.memory_bytes() if len(self._host.tenants) == 1 else self._grown_bytes

    def kill(self) -> None:
        """As the interface says."""
        self._host.kill()

    async def stop(self, *, by_force: bool = False) -> None:
        """As the interface says; others in the process stay."""
        self.on_exit = None
        await self._host.dismiss(self._model, loaded=self._loaded, by_force=by_force)
        self._loaded = False

    def host_ended(self, error: InferwayError) -> None:
        """The process ended by itself."""
        self.ended = error
        if self.on_exit is not None:
            self.on_exit(error)
