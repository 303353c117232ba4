"""The front's end of a runner: starts the process, sends it calls, hands back outcomes, and notices its death.

Outcomes come by callback, on the event loop: a future for each call would cost more than the call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from inferway.datatypes import Datatype
from inferway.errors import InferwayError, RunnerCrashed, VersionLoadFailed
from inferway_inference.runner import wire
from inferway_inference.runner.arena import Arena
from inferway_inference.runner.child import Child, describe_status
from inferway_inference.runner.wire import Kind
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Array

_LOG = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """What a runner shall load."""

    runtime: str
    path: Path
    threads: int
    """Threads that one operation may use; 0 means all cores."""
    low_priority: bool


@dataclass(slots=True)
class Outcome:
    """How a call ended: outputs, or an error. Outputs are views, valid only while the callback runs."""

    outputs: Sequence[Array] = ()
    error: InferwayError | None = None
    started_ns: int = 0
    ended_ns: int = 0


Done = Callable[[Outcome], None]


class RunnerProcess(asyncio.Protocol):
    """One runner. At most `wire.SLOTS` calls may be outstanding; whoever calls sees to that."""

    def __init__(self, name: str) -> None:
        """`name` is for logs; use `start`."""
        self.name = name
        self.on_exit: Callable[[InferwayError], None] | None = None
        """Called once if the process ends without having been stopped, after all outstanding calls have failed."""
        self.ended: InferwayError | None = None
        """Why the process ended, once it has."""
        self._inputs = [Arena.create("inferway-inputs") for _ in range(wire.SLOTS)]
        self._outputs = [Arena.create("inferway-outputs") for _ in range(wire.SLOTS)]
        self._free_slots = list(range(wire.SLOTS))
        self._calls: dict[int, tuple[int, Done]] = {}
        self._last_call = 0
        self._reader = wire.FrameReader()
        self._loading: asyncio.Future[tuple[Signature, ...]] | None = None
        self._stopping = False
        self._transport: asyncio.WriteTransport
        self._child: Child
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str) -> RunnerProcess:
        """Starts the process; it imports nothing heavy before it is told what to load. Raises OSError."""
        runner = cls(name)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                runner._child = await Child.start(*runner._command(theirs))
            ours.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: runner, sock=ours)
        except BaseException:
            ours.close()
            runner._close_arenas()
            raise
        return runner

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    async def load(self, order: LoadOrder) -> tuple[Signature, ...]:
        """What the loaded version can be asked; raises the runtime's own error, or VersionLoadFailed if it died."""
        content = {
            "runtime": order.runtime,
            "path": str(order.path),
            "threads": order.threads,
            "low_priority": order.low_priority,
        }
        self._loading = asyncio.get_running_loop().create_future()
        self._transport.write(wire.pack_json(Kind.LOAD, content))
        return await self._loading

    def promote(self) -> None:
        """Gives the process normal priority: it serves from now on."""
        self._transport.write(wire.pack_frame(Kind.PROMOTE))

    def call(
        self, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, traceparent: str = ""
    ) -> None:
        """Computes `outputs` (positions) of `signature` (position); `done` is called once, never from within.

        Raises OSError when there is no memory for the inputs, and RunnerCrashed when the process is gone.
        """
        if self._transport.is_closing():
            raise RunnerCrashed("the model's process has ended")
        slot = self._free_slots[-1]
        self._last_call = self._last_call % 0xFFFFFFFF + 1
        head = wire.CallHead(self._last_call, slot, signature, outputs, traceparent)
        frame = wire.pack_call(head, inputs, self._inputs[slot])
        self._free_slots.pop()
        self._calls[head.call] = (slot, done)
        self._transport.write(frame)

    async def stop(self, *, by_force: bool = False) -> None:
        """Ends the process, by force if asked or if it does not go by itself. May be called again."""
        self._stopping = True
        self._transport.close()
        if by_force:
            self.kill()
        if await self._child.exited(_STOP_SECONDS) is None:
            self.kill()
            await self._child.exited(_STOP_SECONDS)
        if self._ending is not None:
            await self._ending

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        self._child.kill()

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 if unknown."""
        try:
            resident = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(resident) * os.sysconf("SC_PAGE_SIZE")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of the control socket."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop has classes of its own

    def data_received(self, data: bytes) -> None:
        """Of the control socket."""
        for kind, body in self._reader.feed(data):
            if kind is Kind.RESULT:
                head, outputs = wire.unpack_result(body, self._outputs)
                self._finish(head.call, Outcome(outputs, None, head.started_ns, head.ended_ns))
            elif kind is Kind.FAILED:
                self._failed(body)
            elif self._loading is not None and not self._loading.done():
                self._loading.set_result(tuple(map(read_signature, json.loads(bytes(body))["signatures"])))

    def connection_lost(self, error: Exception | None) -> None:
        """Of the control socket: the process has ended, or is being stopped."""
        del error
        self._close_arenas()
        self._ending = asyncio.create_task(self._report_end(), name=f"end of {self.name}")

    def _command(self, control: socket.socket) -> tuple[list[str], list[int]]:
        """Arguments of the process, and the descriptors that it inherits."""
        inputs, outputs = ([arena.descriptor for arena in arenas] for arenas in (self._inputs, self._outputs))
        arguments = ["-m", "inferway_inference.runner", "--socket", str(control.fileno()), "--parent", str(os.getpid())]
        arguments += ["--inputs", *map(str, inputs), "--outputs", *map(str, outputs)]
        return arguments, [control.fileno(), *inputs, *outputs]

    def _close_arenas(self) -> None:
        for arena in (*self._inputs, *self._outputs):
            arena.close()

    def _failed(self, body: memoryview) -> None:
        call, error = wire.unpack_failure(body)
        if call:
            self._finish(call, Outcome(error=error))
        elif self._loading is not None and not self._loading.done():
            self._loading.set_exception(error)

    def _finish(self, call: int, outcome: Outcome) -> None:
        slot, done = self._calls.pop(call)
        self._free_slots.append(slot)
        done(outcome)

    async def _report_end(self) -> None:
        error = RunnerCrashed(f"the model's process ended unexpectedly ({await self._exit_cause()})")
        self.ended = error
        for call in list(self._calls):
            self._finish(call, Outcome(error=error))
        if self._loading is not None and not self._loading.done():
            self._loading.set_exception(VersionLoadFailed(f"{error.message} while it was loading", cause=error.message))
        if not self._stopping:
            _LOG.error(
                "a runner ended", extra={"version": self.name, "cause": error.message, "stderr": [*self._child.stderr]}
            )
            if self.on_exit is not None:
                self.on_exit(error)

    async def _exit_cause(self) -> str:
        status = await self._child.exited(_STOP_SECONDS)
        if status is None:
            self.kill()
            return "it closed its socket"
        return describe_status(status)


def read_signature(content: dict[str, Any]) -> Signature:
    """Inverse of `serve.describe_signature`."""

    def specs(described: list[tuple[str, int, list[int] | None]]) -> list[TensorSpec]:
        return [
            TensorSpec(name, Datatype(datatype), None if shape is None else tuple(shape))
            for name, datatype, shape in described
        ]

    return Signature.of(content["name"], specs(content["inputs"]), specs(content["outputs"]))
