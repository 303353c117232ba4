"""The language between front and runner: frames on a socket pair.

    frame    length u32 · kind u8 · body                       (length counts kind and body)
    PREPARE  JSON runtime: import the framework   no answer
    LOAD     JSON order, with call and model      LOADED   JSON report, with call; or FAILED
    CALLERS  JSON number of calls side by side    no answer
    PROMOTE  JSON model: its warm-up is over      no answer
    UNLOAD   JSON model                           no answer
    CALL     call u32 · slot u8 · shared u8 · model u16 · signature u16 · outputs u16 · inputs u16 · traceparent u8
             · output indexes u16… · descriptors… · traceparent · contents, unless shared
    RESULT   call u32 · slot u8 · shared u8 · started_ns u64 · ended_ns u64 · outputs u16 · descriptors…
             · contents, unless shared; in any order
    FAILED   call u32 · JSON failure

A model is a number that the front gives to one copy of one version. A descriptor is datatype u8 · rank u8 · bytes u64
· dimensions i64…. Contents follow one another, in the frame or, above `INLINE_BYTES`, in the arena of the slot, there
each at a multiple of `ALIGNMENT`. Both ends are of one release and one machine: integers are native, and there is no
version to negotiate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import IntEnum
from struct import Struct, pack, unpack_from
from typing import Any, NamedTuple

from inferway.datatypes import Datatype
from inferway.errors import BY_REASON, InferwayError, Internal
from inferway_inference.runner.arena import Arena
from inferway_inference.tensors import Array, Buffer

INLINE_BYTES = 64 * 1024
ALIGNMENT = 64
MAX_FRAME_BYTES = 64 * 1024 * 1024

_FRAME = Struct("=IB")
_CALL = Struct("=IB?HHHHB")
_RESULT = Struct("=IB?QQH")
_CALL_ID = Struct("=I")
_DESCRIPTOR = Struct("=BBQ")


class Kind(IntEnum):
    """What a frame is."""

    LOAD = 1
    CALL = 2
    PROMOTE = 3
    PREPARE = 4
    CALLERS = 5
    UNLOAD = 6
    LOADED = 16
    RESULT = 17
    FAILED = 18


class CallHead(NamedTuple):
    """A call without its tensors."""

    call: int
    slot: int
    model: int
    signature: int
    outputs: tuple[int, ...]
    traceparent: str


class ResultHead(NamedTuple):
    """An answer without its tensors. Times are nanoseconds since 1970."""

    call: int
    slot: int
    started_ns: int
    ended_ns: int


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        """Nothing read yet."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, memoryview]]:
        """Yields the frames that `data` completes; raises ValueError on a length that cannot be."""
        if self._rest:
            self._rest += data
            data = bytes(self._rest)
        position, size = 0, len(data)
        while size - position >= _FRAME.size:
            length, kind = _FRAME.unpack_from(data, position)
            if not 1 <= length <= MAX_FRAME_BYTES:
                message = f"a frame of {length} bytes"
                raise ValueError(message)
            end = position + 4 + length
            if end > size:
                break
            yield Kind(kind), memoryview(data)[position + 5 : end]
            position = end
        self._rest = bytearray(data[position:])


def pack_frame(kind: Kind, *parts: Buffer) -> bytes:
    """One frame, ready to send."""
    return b"".join((_FRAME.pack(1 + sum(map(len, parts)), kind), *parts))


def pack_json(kind: Kind, content: dict[str, Any]) -> bytes:
    """A frame of JSON."""
    return pack_frame(kind, json.dumps(content).encode())


def pack_call(head: CallHead, arrays: Sequence[Array], arena: Arena) -> bytes:
    """A CALL; contents above the threshold go to `arena`. Raises OSError when there is no memory for them."""
    descriptors, shared, contents = _place(arrays, arena)
    trace = head.traceparent.encode()
    counts = len(head.outputs), len(arrays), len(trace)
    fixed = _CALL.pack(head.call, head.slot, shared, head.model, head.signature, *counts)
    return pack_frame(Kind.CALL, fixed, pack(f"={len(head.outputs)}H", *head.outputs), descriptors, trace, *contents)


def unpack_call(body: memoryview, arenas: Sequence[Arena]) -> tuple[CallHead, list[Array]]:
    """The call and its inputs, as views that are valid until it is answered."""
    call, slot, shared, model, signature, output_count, input_count, trace_bytes = _CALL.unpack_from(body)
    outputs = unpack_from(f"={output_count}H", body, _CALL.size)
    described, position = _descriptors(body, _CALL.size + 2 * output_count, input_count)
    traceparent = str(body[position : position + trace_bytes], "ascii")
    arrays = _collect(described, body[position + trace_bytes :], arenas[slot] if shared else None)
    return CallHead(call, slot, model, signature, outputs, traceparent), arrays


def pack_result(head: ResultHead, arrays: Sequence[Array], arena: Arena) -> bytes:
    """A RESULT; contents above the threshold go to `arena`. Raises OSError when there is no memory for them."""
    descriptors, shared, contents = _place(arrays, arena)
    fixed = _RESULT.pack(head.call, head.slot, shared, head.started_ns, head.ended_ns, len(arrays))
    return pack_frame(Kind.RESULT, fixed, descriptors, *contents)


def unpack_result(body: memoryview, arenas: Sequence[Arena]) -> tuple[ResultHead, list[Array]]:
    """The answer and its outputs, as views that are valid until the slot is used again."""
    call, slot, shared, started_ns, ended_ns, count = _RESULT.unpack_from(body)
    described, position = _descriptors(body, _RESULT.size, count)
    arrays = _collect(described, body[position:], arenas[slot] if shared else None)
    return ResultHead(call, slot, started_ns, ended_ns), arrays


def pack_failure(call: int, error: InferwayError) -> bytes:
    """A FAILED frame that `unpack_failure` turns into an equal error."""
    content = {"reason": error.reason, "message": error.message, "metadata": error.metadata}
    return pack_frame(Kind.FAILED, _CALL_ID.pack(call), json.dumps(content).encode())


def unpack_failure(body: memoryview) -> tuple[int, InferwayError]:
    """The call or load that failed, and why."""
    content = json.loads(bytes(body[_CALL_ID.size :]))
    kind = BY_REASON.get(content["reason"], Internal)
    return _CALL_ID.unpack_from(body)[0], kind(content["message"], **content["metadata"])


def _place(arrays: Sequence[Array], arena: Arena) -> tuple[bytes, bool, list[Buffer]]:
    sizes = [array.byte_count for array in arrays]
    descriptors = b"".join(
        pack(f"=BBQ{len(array.shape)}q", array.datatype, len(array.shape), size, *array.shape)
        for array, size in zip(arrays, sizes, strict=True)
    )
    if sum(sizes) <= INLINE_BYTES:
        return descriptors, False, [part for array in arrays for part in array.parts]
    memory = arena.for_writing(sum(map(_aligned, sizes)))
    start = 0
    for array, size in zip(arrays, sizes, strict=True):
        position = start
        for part in array.parts:
            memory[position : position + len(part)] = part
            position += len(part)
        start += _aligned(size)
    return descriptors, True, []


def _descriptors(body: memoryview, position: int, count: int) -> tuple[list[tuple[int, tuple[int, ...], int]], int]:
    found = []
    for _ in range(count):
        datatype, rank, size = _DESCRIPTOR.unpack_from(body, position)
        shape = unpack_from(f"={rank}q", body, position + _DESCRIPTOR.size)
        position += _DESCRIPTOR.size + 8 * rank
        found.append((datatype, shape, size))
    return found, position


def _collect(described: list[tuple[int, tuple[int, ...], int]], inline: memoryview, arena: Arena | None) -> list[Array]:
    step = _aligned if arena else int
    contents = inline if arena is None else arena.for_reading(sum(_aligned(size) for _, _, size in described))
    arrays, start = [], 0
    for datatype, shape, size in described:
        arrays.append(Array(Datatype(datatype), shape, (contents[start : start + size],)))
        start += step(size)
    return arrays


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
