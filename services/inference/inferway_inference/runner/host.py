"""The front's end of a runner process: starts it, sends it orders and calls, and notices its death.

A host holds one version, or a group of small ones, each a `RunnerProcess` here. They share its slots, and its fate.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from inferway.errors import InferwayError, RunnerCrashed, VersionLoadFailed
from inferway_inference.runner import wire
from inferway_inference.runner.arena import Arena
from inferway_inference.runner.base import Done, LoadOrder, Outcome
from inferway_inference.runner.child import Child, describe_status
from inferway_inference.runner.orders import describe_order, read_signature
from inferway_inference.runner.wire import Kind
from inferway_inference.signatures import Signature
from inferway_inference.tensors import Array

_LOG = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
MAX_CALLERS = 8
"""Calls that a process computes at once at most: each needs a slot, and more cores are better used by instances."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Tenant(Protocol):
    """Whoever has a model on a host."""

    callers: int

    def host_ended(self, error: InferwayError) -> None:
        """The process ended by itself; outstanding calls have failed already."""


class _Call(NamedTuple):
    slot: int
    model: int
    done: Done
    began: float


class RunnerHost(asyncio.Protocol):
    """One process. At most `slots` calls may be outstanding; whoever calls sees to that."""

    def __init__(self, name: str, slots: int) -> None:
        """`name` is for logs; use `start`."""
        self.name, self.slots = name, slots
        self.ended: InferwayError | None = None
        """Why the process ended, once it has."""
        self.tenants: dict[int, Tenant] = {}
        self._inputs = [Arena.create("inferway-inputs") for _ in range(slots)]
        self._outputs = [Arena.create("inferway-outputs") for _ in range(slots)]
        self._free_slots = list(range(slots))
        self._calls: dict[int, _Call] = {}
        self._loads: dict[int, asyncio.Future[tuple[Signature, ...]]] = {}
        self._last_call = self._last_model = 0
        self._reader = wire.FrameReader()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport
        self._child: Child
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, name: str, slots: int = 0) -> RunnerHost:
        """Starts the process; it imports nothing heavy before it is told what to load. Raises OSError.

        By default it has a slot for each call that it may compute at once, and one for a call that waits there.
        """
        host = cls(name, slots or min(cores(), MAX_CALLERS) + 1)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                host._child = await Child.start(*host._command(theirs))
            ours.setblocking(False)
            await host._loop.create_unix_connection(lambda: host, sock=ours)
        except BaseException:
            ours.close()
            host._close_arenas()
            raise
        return host

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    @property
    def usable(self) -> bool:
        """Whether it takes another version."""
        return not self._stopping and self.ended is None and not self._transport.is_closing()

    def prepare(self, runtime: str) -> None:
        """Imports the framework at low priority, so that a load need not."""
        self._order(Kind.PREPARE, {"runtime": runtime})

    def admit(self, tenant: Tenant) -> int:
        """Makes room for a version; returns its number here."""
        self._last_model += 1
        self.tenants[self._last_model] = tenant
        return self._last_model

    async def load(self, model: int, order: LoadOrder) -> tuple[Signature, ...]:
        """What the loaded version can be asked; raises the runtime's own error, or VersionLoadFailed if it died."""
        if self.ended is not None:
            raise _died_loading(self.ended)
        call, loading = self._next_call(), self._loop.create_future()
        self._loads[call] = loading
        self._order(Kind.LOAD, {**describe_order(order), "call": call, "model": model})
        signatures: tuple[Signature, ...] = await loading
        return signatures

    def tell_callers(self) -> None:
        """As many calls are computed at once as the versions here want together."""
        wanted = sum(tenant.callers for tenant in self.tenants.values())
        self._order(Kind.CALLERS, {"callers": max(1, wanted)})  # one is needed to hear of the next order

    def promote(self) -> None:
        """Gives the process normal priority: it serves from now on."""
        self._order(Kind.PROMOTE, {})

    def call(
        self, model: int, signature: int, inputs: Sequence[Array], outputs: tuple[int, ...], done: Done, trace: str
    ) -> None:
        """Computes `outputs` (positions) of `signature` (position); `done` is called once, never from within.

        Raises OSError when there is no memory for the inputs, and RunnerCrashed when the process is gone.
        """
        if self._transport.is_closing():
            raise RunnerCrashed("the model's process has ended")
        slot = self._free_slots[-1]
        head = wire.CallHead(self._next_call(), slot, model, signature, outputs, trace)
        frame = wire.pack_call(head, inputs, self._inputs[slot])
        self._free_slots.pop()
        self._calls[head.call] = _Call(slot, model, done, self._loop.time())
        self._transport.write(frame)

    def outstanding(self, model: int) -> int:
        """Calls of a version without an outcome."""
        return sum([call.model == model for call in self._calls.values()])

    def oldest_call(self, model: int) -> float:
        """When the oldest of them began; infinite if there is none."""
        return min([call.began for call in self._calls.values() if call.model == model], default=math.inf)

    async def dismiss(self, model: int, *, loaded: bool, by_force: bool) -> None:
        """Unloads a version; the process ends with its last one, by force if asked or if it does not go by itself."""
        self.tenants.pop(model, None)
        if not self.tenants or not self.usable:
            await self.stop(by_force=by_force)
        elif loaded:
            for number, call in self._calls.items():
                if call.model == model:
                    self._calls[number] = call._replace(done=_ignore)
            self._order(Kind.UNLOAD, {"model": model})
            self.tell_callers()

    async def stop(self, *, by_force: bool = False) -> None:
        """Ends the process. May be called again."""
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
        return resident_bytes(self.pid)

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
                self._failed(*wire.unpack_failure(body))
            else:
                self._loaded(json.loads(bytes(body)))

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

    def _order(self, kind: Kind, content: dict[str, Any]) -> None:
        self._transport.write(wire.pack_json(kind, content))

    def _next_call(self) -> int:
        self._last_call = self._last_call % 0xFFFFFFFF + 1
        return self._last_call

    def _close_arenas(self) -> None:
        for arena in (*self._inputs, *self._outputs):
            arena.close()

    def _loaded(self, report: dict[str, Any]) -> None:
        loading = self._loads.pop(report["call"])
        if not loading.done():
            loading.set_result(tuple(map(read_signature, report["signatures"])))

    def _failed(self, call: int, error: InferwayError) -> None:
        loading = self._loads.pop(call, None)
        if loading is None:
            self._finish(call, Outcome(error=error))
        elif not loading.done():
            loading.set_exception(error)

    def _finish(self, call: int, outcome: Outcome) -> None:
        ended = self._calls.pop(call)
        self._free_slots.append(ended.slot)
        ended.done(outcome)

    async def _report_end(self) -> None:
        error = RunnerCrashed(f"the model's process ended unexpectedly ({await self._exit_cause()})")
        self.ended = error
        for call in list(self._calls):
            self._finish(call, Outcome(error=error))
        for loading in self._loads.values():
            if not loading.done():
                loading.set_exception(_died_loading(error))
        if not self._stopping:
            _LOG.error(
                "a runner ended", extra={"version": self.name, "cause": error.message, "stderr": [*self._child.stderr]}
            )
            for tenant in list(self.tenants.values()):
                tenant.host_ended(error)

    async def _exit_cause(self) -> str:
        status = await self._child.exited(_STOP_SECONDS)
        if status is None:
            self.kill()
            return "it closed its socket"
        return describe_status(status)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if unknown."""
    try:
        resident = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(resident) * os.sysconf("SC_PAGE_SIZE")


def _died_loading(error: InferwayError) -> VersionLoadFailed:
    return VersionLoadFailed(f"{error.message} while it was loading", cause=error.message)


def _ignore(outcome: Outcome) -> None:
    """For answers that nobody waits for."""
