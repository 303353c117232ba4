"""The runner's own end: loads one version, then computes what comes, one call after the other.

It ends when the front closes the socket, and is killed with the front should that die first.
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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from inferway.errors import InferwayError, ModelFailed, VersionLoadFailed
from inferway_inference.runner import priority, wire
from inferway_inference.runner.arena import Arena
from inferway_inference.runner.arrays import from_numpy, to_numpy
from inferway_inference.runner.wire import Kind
from inferway_inference.runtimes import open_runtime
from inferway_inference.runtimes.base import Runtime
from inferway_inference.signatures import Signature

_PR_SET_PDEATHSIG = 1
_READ_BYTES = 256 * 1024


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m inferway_inference.runner")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--inputs", type=int, nargs=wire.SLOTS, required=True)
    parser.add_argument("--outputs", type=int, nargs=wire.SLOTS, required=True)
    given = parser.parse_args(arguments)
    _live_and_die_with(given.parent)
    with socket.socket(fileno=given.socket) as control:
        Serving(control, [Arena(fd) for fd in given.inputs], [Arena(fd) for fd in given.outputs]).run()
    return 0


def _live_and_die_with(parent: int) -> None:
    """Ctrl-C reaches the whole process group, but it is the front that says when to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


class Serving:
    """The loop over frames."""

    def __init__(self, control: socket.socket, inputs: Sequence[Arena], outputs: Sequence[Arena]) -> None:
        """`inputs` and `outputs` have one arena for each slot."""
        self._control, self._inputs, self._outputs = control, inputs, outputs
        self._runtime: Runtime | None = None
        self._signatures: tuple[Signature, ...] = ()
        self._lowered = False

    def run(self) -> None:
        """Serves until the socket ends."""
        reader = wire.FrameReader()
        handlers = {Kind.LOAD: self._load, Kind.CALL: self._call, Kind.PROMOTE: self._promote}
        while data := self._control.recv(_READ_BYTES):
            for kind, body in reader.feed(data):
                handlers[kind](body)

    def _load(self, body: memoryview) -> None:
        order = json.loads(bytes(body))
        if order["low_priority"]:
            self._lowered = priority.lower()
        try:
            self._runtime = open_runtime(order["runtime"])
            self._signatures = self._runtime.load(Path(order["path"]), order["threads"])
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the front must hear of it
            self._control.sendall(wire.pack_failure(0, _typed(error, VersionLoadFailed)))
            return
        gc.freeze()  # what a framework imports is never garbage: no collection walks it again
        report = {"signatures": [describe_signature(signature) for signature in self._signatures]}
        self._control.sendall(wire.pack_json(Kind.LOADED, report))

    def _promote(self, body: memoryview) -> None:
        del body
        if self._lowered:
            priority.restore()

    def _call(self, body: memoryview) -> None:
        head, arrays = wire.unpack_call(body, self._inputs)
        try:
            answer = self._compute(head, [to_numpy(array) for array in arrays])
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it fails this call alone
            sys.stderr.write(f"call failed: {type(error).__name__} traceparent={head.traceparent or '-'}\n")
            answer = wire.pack_failure(head.call, _typed(error, ModelFailed))
        self._control.sendall(answer)

    def _compute(self, head: wire.CallHead, inputs: list[NDArray[Any]]) -> bytes:
        assert self._runtime is not None
        signature = self._signatures[head.signature]
        named = {spec.name: values for spec, values in zip(signature.inputs, inputs, strict=True)}
        wanted = [signature.outputs[index] for index in head.outputs]
        started_ns = time.time_ns()
        results = self._runtime.call(signature.name, named, [spec.name for spec in wanted])
        ended_ns = time.time_ns()
        arrays = [from_numpy(results[spec.name], spec.datatype, spec.name) for spec in wanted]
        return wire.pack_result(
            wire.ResultHead(head.call, head.slot, started_ns, ended_ns), arrays, self._outputs[head.slot]
        )


def describe_signature(signature: Signature) -> dict[str, Any]:
    """JSON form of a signature; `process.read_signature` is its inverse."""
    return {
        "name": signature.name,
        "inputs": [[spec.name, spec.datatype, spec.shape] for spec in signature.inputs],
        "outputs": [[spec.name, spec.datatype, spec.shape] for spec in signature.outputs],
    }


def _typed(error: Exception, kind: type[InferwayError]) -> InferwayError:
    """What callers may know: our own errors as they are, of others only their kind."""
    if isinstance(error, InferwayError):
        return error
    cause = type(error).__name__
    return kind(f"the model raised {cause}", cause=cause)
