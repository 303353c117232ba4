"""Frames between front and runner: what goes in comes out, however the socket cuts it."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact, ModelFailed
from inferway_inference.runner import wire
from inferway_inference.runner.arena import KEPT_BYTES, Arena
from inferway_inference.runner.wire import CallHead, FrameReader, Kind, ResultHead
from inferway_inference.tensors import Array

ARRAYS = st.lists(
    st.builds(
        lambda datatype, shape, cut: Array(
            datatype,
            tuple(shape),
            (bytes(range(256))[: math.prod(shape)][:cut], bytes(range(256))[: math.prod(shape)][cut:]),
        ),
        st.sampled_from(Datatype),
        st.lists(st.integers(0, 5), max_size=3),
        st.integers(0, 125),
    ),
    max_size=4,
)


def contents(arrays: list[Array]) -> list[tuple[Datatype, tuple[int, ...], bytes]]:
    return [(array.datatype, array.shape, b"".join(map(bytes, array.parts))) for array in arrays]


def single_frame(data: bytes) -> memoryview:
    [(_, body)] = list(FrameReader().feed(data))
    return body


@given(arrays=ARRAYS, large=st.booleans())
def test_calls_and_results_survive_the_socket(*, arrays: list[Array], large: bool):
    """Inline and through shared memory."""
    if large:
        arrays = [*arrays, Array(Datatype.UINT8, (wire.INLINE_BYTES + 1,), (os.urandom(wire.INLINE_BYTES + 1),))]
    writer = Arena.create("test")
    reader = Arena(os.dup(writer.descriptor))
    call = CallHead(7, 1, 2, 3, (0, 2), "00-abc-def-01")
    head, came = wire.unpack_call(single_frame(wire.pack_call(call, arrays, writer)), [writer, reader])
    assert (head, contents(came)) == (call, contents(arrays))

    result = ResultHead(7, 1, 10, 20)
    done, came = wire.unpack_result(single_frame(wire.pack_result(result, arrays, writer)), [writer, reader])
    assert (done, contents(came)) == (result, contents(arrays))
    del came
    writer.close()
    reader.close()


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(1, 20), max_size=20))
def test_frames_are_whole_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]):
    """A stream socket keeps no boundaries."""
    stream = b"".join(wire.pack_frame(Kind.CALL, body) for body in bodies)
    reader, found = FrameReader(), []
    for cut in cuts:
        found += [bytes(body) for _, body in reader.feed(stream[:cut])]
        stream = stream[cut:]
    found += [bytes(body) for _, body in reader.feed(stream)]

    assert found == bodies


def test_a_length_that_cannot_be_is_refused():
    """Better than to wait for four gigabytes that never come."""
    with pytest.raises(ValueError, match="a frame of"):
        list(FrameReader().feed(b"\xff\xff\xff\xff\x01"))


@pytest.mark.parametrize("error", [ModelFailed("no", cause="poison"), CorruptArtifact("broken", path="a/b")])
def test_errors_survive_the_socket(error: ModelFailed):
    """What the runner knows is what the caller is told."""
    call, came = wire.unpack_failure(single_frame(wire.pack_failure(5, error)))

    assert (call, type(came), came.message, came.metadata) == (5, type(error), error.message, error.metadata)


def test_shared_memory_grows_with_use_and_shrinks_after_a_giant():
    """One large request must not cost its memory for ever."""
    arena = Arena.create("test")
    for size in (10, 10_000_000, 2 * KEPT_BYTES):
        arena.for_writing(size)
        assert os.fstat(arena.descriptor).st_size >= size
    arena.for_writing(10)

    assert os.fstat(arena.descriptor).st_size < KEPT_BYTES
    arena.close()


def test_a_reader_is_not_led_beyond_the_memory():
    """Touching pages that are not there would kill the front."""
    arena = Arena.create("test")
    with pytest.raises(ValueError, match="told of 10 bytes"):
        arena.for_reading(10)
    arena.close()
