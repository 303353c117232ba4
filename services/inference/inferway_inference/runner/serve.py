"""A runner process from within: loads versions, and computes what comes with as many threads as it is told.

The threads take turns at the socket: whoever has the turn waits for a frame, passes the turn on and computes, so that
a call needs no hand-over between threads. Quick calls are computed without passing the turn on: waking another thread
would take longer. Orders other than calls are carried out during the turn, which is why they
keep their order; loading takes long and has a thread of its own.

A model that is unloaded takes the threads with it that computed: TensorFlow keeps by thread, for all sessions, what
oneDNN prepared for an operation, and a thread that computed with all cores would go on to split operations for them
although the copy that stays has but one.

The process ends when the front closes the socket, and is killed with the front should that die first.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from inferway.errors import InferwayError, ModelFailed
from inferway_inference.runner import priority, wire
from inferway_inference.runner.arena import Arena
from inferway_inference.runner.model import Model, typed
from inferway_inference.runner.orders import describe_signature, read_order
from inferway_inference.runner.wire import Kind
from inferway_inference.runtimes import open_runtime

_PR_SET_PDEATHSIG = 1
_READ_BYTES = 256 * 1024
_QUICK_NS = 200_000
"""A call is taken to be quick if the one before took less."""

_T = TypeVar("_T")


def main(arguments: list[str]) -> NoReturn:
    """Entry point. Ends the process without tidying up: nothing of it is needed, and others serve meanwhile."""
    parser = argparse.ArgumentParser(prog="python -m inferway_inference.runner")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--inputs", type=int, nargs="+", required=True)
    parser.add_argument("--outputs", type=int, nargs="+", required=True)
    given = parser.parse_args(arguments)
    _live_and_die_with(given.parent)
    with socket.socket(fileno=given.socket) as control:
        serving = Serving(control, [Arena(fd) for fd in given.inputs], [Arena(fd) for fd in given.outputs])
        _or_die(Serving.run, serving)
        priority.PROCESS.be_nice()  # the kernel still has its memory to take back
    os._exit(0)


def _live_and_die_with(parent: int) -> None:
    """Ctrl-C reaches the whole process group, but it is the front that says when to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


class Serving:
    """The threads, and what they share."""

    def __init__(self, control: socket.socket, inputs: Sequence[Arena], outputs: Sequence[Arena]) -> None:
        """`inputs` and `outputs` have one arena for each slot."""
        self._control, self._inputs, self._outputs = control, inputs, outputs
        self._models: dict[int, Model] = {}
        self._unwanted = set[int]()
        """Unloaded before they were loaded."""
        self._reader = wire.FrameReader()
        self._frames = deque[tuple[Kind, memoryview]]()
        self._turn, self._sending, self._books = threading.Lock(), threading.Lock(), threading.Lock()
        self._callers = 1
        self._first = 0
        """Number of the first caller that may stay; older ones go after what they compute."""
        self._numbers = set[int]()
        """Callers that are there."""
        self._threads: list[threading.Thread] = []
        self._ended = self._serves = self._quick = False
        self._orders: dict[Kind, Callable[[dict[str, Any]], None]] = {
            Kind.PREPARE: self._prepare,
            Kind.LOAD: self._load,
            Kind.CALLERS: self._set_callers,
            Kind.PROMOTE: self._promote,
            Kind.UNLOAD: self._unload,
        }

    def run(self) -> None:
        """Serves until the socket ends."""
        self._start_callers()
        while threads := [thread for thread in self._threads if thread.is_alive()]:
            threads[0].join()

    def _serve(self, number: int) -> None:
        while True:
            with self._turn:
                call = self._next_call(number)
                while call is not None and self._quick:
                    self._call(call)
                    call = self._next_call(number)
            if call is None:
                return
            self._call(call)

    def _next_call(self, number: int) -> memoryview | None:
        """None once the caller of this number, who has the turn, is not needed any more."""
        while self._first <= number < self._first + self._callers and not self._ended:
            if not self._frames:
                data = self._control.recv(_READ_BYTES)
                self._ended = not data
                self._frames.extend(self._reader.feed(data))
                continue
            kind, body = self._frames.popleft()
            if kind is Kind.CALL:
                return body
            self._orders[kind](json.loads(bytes(body)))
        self._numbers.discard(number)
        return None

    def _call(self, body: memoryview) -> None:
        head, inputs = wire.unpack_call(body, self._inputs)
        try:
            computed = self._models[head.model].compute(head.signature, inputs, head.outputs)
            self._quick = computed.ended_ns - computed.started_ns < _QUICK_NS
            result = wire.ResultHead(head.call, head.slot, computed.started_ns, computed.ended_ns)
            answer = wire.pack_result(result, computed.outputs, self._outputs[head.slot])
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it fails this call alone
            sys.stderr.write(f"call failed: {type(error).__name__} traceparent={head.traceparent or '-'}\n")
            answer = wire.pack_failure(head.call, typed(error, ModelFailed))
        self._send(answer)

    def _send(self, frame: bytes) -> None:
        with self._sending:
            self._control.sendall(frame)

    def _prepare(self, order: dict[str, Any]) -> None:
        """What is wrong with the framework shows when a version is loaded."""
        priority.PROCESS.lower()
        with suppress(Exception):
            open_runtime(order["runtime"])
        gc.freeze()

    def _load(self, order: dict[str, Any]) -> None:
        """Beside versions that serve only the loading itself is of low priority."""
        if not self._serves:
            (priority.PROCESS.lower if order["low_priority"] else priority.PROCESS.restore)()
        self._start(self._load_model, order)

    def _load_model(self, order: dict[str, Any]) -> None:
        if order["low_priority"]:
            priority.lower_thread()
        try:
            model = Model.load(read_order(order))
        except InferwayError as error:
            self._send(wire.pack_failure(order["call"], error))
            return
        gc.freeze()  # what a framework imports is never garbage: no collection walks it again
        if self._keep(order["model"], model):
            signatures = [describe_signature(signature) for signature in model.signatures]
            self._send(wire.pack_json(Kind.LOADED, {"call": order["call"], "signatures": signatures}))
        else:
            model.close()

    def _keep(self, number: int, model: Model) -> bool:
        with self._books:
            wanted = number not in self._unwanted
            self._unwanted.discard(number)
            if wanted:
                self._models[number] = model
        return wanted

    def _unload(self, order: dict[str, Any]) -> None:
        with self._books:
            model = self._models.pop(order["model"], None)
            if model is None:
                self._unwanted.add(order["model"])
        if model is not None:
            self._start(Model.close, model)
            self._first = max(self._numbers) + 1
            self._start_callers()

    def _set_callers(self, order: dict[str, Any]) -> None:
        self._callers = order["callers"]
        self._start_callers()

    def _start_callers(self) -> None:
        for number in set(range(self._first, self._first + self._callers)) - self._numbers:
            self._numbers.add(number)
            self._start(self._serve, number)

    def _promote(self, order: dict[str, Any]) -> None:
        del order
        self._serves = True
        priority.PROCESS.restore()

    def _start(self, work: Callable[[_T], None], argument: _T) -> None:
        """Only the thread that has the turn starts others."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=_or_die, args=(work, argument), name=work.__name__)
        self._threads.append(thread)
        thread.start()


def _or_die(work: Callable[[_T], None], argument: _T) -> None:
    """A thread that fails takes the process with it: the front then knows, and starts another."""
    try:
        work(argument)
    except BrokenPipeError:  # the front is gone, and ends this process
        return
    except BaseException:  # noqa: BLE001 - whatever it is
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
