"""Warm-up requests as TensorFlow Serving records them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pytest

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact
from inferway_inference.recorded import FILE, MAX_BYTES, _prediction_log, masked_crc32c, read_recorded
from inferway_inference.signatures import Signature, TensorSpec

SIGNATURE = Signature.of(
    "serving_default",
    [TensorSpec("words", Datatype.BYTES, (-1,)), TensorSpec("x", Datatype.FP32, (-1, 2))],
    [TensorSpec("y", Datatype.FP32, (-1,))],
)


def log(signature: str = "", **changes: Any) -> bytes:
    """A PredictionLog of two rows: `words` by values, `x` by content."""
    message = _prediction_log()()
    request = message.predict_log.request
    request.model_spec.signature_name = signature
    words, x = request.inputs.add(key="words"), request.inputs.add(key="x")
    words.value.dtype, x.value.dtype = 7, changes.get("dtype", 1)
    words.value.tensor_shape.dim.add(size=2)
    words.value.string_val.extend([b"a", b"bc"])
    for size in (2, 2):
        x.value.tensor_shape.dim.add(size=size)
    x.value.tensor_content = np.arange(4, dtype="f4").tobytes()
    content: bytes = message.SerializeToString()
    return content


def write(folder: Path, *logs: bytes) -> Path:
    """A TFRecord file of these."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for content in logs:
            head = pack("<Q", len(content))
            file.write(head + pack("<I", masked_crc32c(head)) + content + bytes(4))
    return folder


def test_recorded_requests_become_inputs_in_the_order_of_the_signature(tmp_path: Path):
    """They are what the model really gets, strings and all."""
    [[words, x]] = read_recorded(write(tmp_path, log()), [SIGNATURE])["serving_default"]

    assert bytes(words.parts[0]) == b"\x01\0\0\0a\x02\0\0\0bc"
    assert (x.shape, bytes(x.parts[0])) == ((2, 2), np.arange(4, dtype="f4").tobytes())


def test_requests_that_fit_no_signature_are_left_out(tmp_path: Path):
    """An old recording must not keep a new version from serving."""
    assert read_recorded(write(tmp_path, log("other"), log(dtype=3)), [SIGNATURE]) == {}


def test_a_version_without_recordings_has_none(tmp_path: Path):
    """Most have none."""
    assert read_recorded(tmp_path, [SIGNATURE]) == {}


@pytest.mark.parametrize("damage", [b"not a record at all", log(), b"\x05"])
def test_what_is_no_recording_is_named(tmp_path: Path, damage: bytes):
    """The publisher put it there for a reason, and believes that it is used."""
    write(tmp_path, log())
    with (tmp_path / FILE).open("ab") as file:
        file.write(damage)
    with pytest.raises(CorruptArtifact, match="tf_serving_warmup_requests"):
        read_recorded(tmp_path, [SIGNATURE])


def filled(rows: int, *rest: int) -> bytes:
    """A PredictionLog whose `x` has one value for all of its shape, as TensorFlow writes constants."""
    message = _prediction_log()()
    message.ParseFromString(log())
    x = message.predict_log.request.inputs[1].value
    x.ClearField("tensor_content")
    x.ClearField("tensor_shape")
    x.float_val.append(0.5)
    for size in (rows, *rest):
        x.tensor_shape.dim.add(size=size)
    content: bytes = message.SerializeToString()
    return content


def test_the_last_value_stands_for_the_rest_of_a_shape(tmp_path: Path):
    """TensorFlow writes a constant as one value."""
    [[_, x]] = read_recorded(write(tmp_path, filled(2, 2)), [SIGNATURE])["serving_default"]

    assert bytes(x.parts[0]) == np.full(4, 0.5, "f4").tobytes()


@pytest.mark.parametrize("shape", [(100_000_000, 2), (2**62, 2), (2**62, 2**62), (-4, -1), (1,) * 33])
def test_a_shape_that_no_record_can_have_is_refused_before_memory_is_taken(tmp_path: Path, shape: tuple[int, ...]):
    """Forty bytes of a file must not become gigabytes of the worker."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptArtifact, match=r"tf_serving_warmup_requests.*(bytes|shape)"):
            read_recorded(write(tmp_path, filled(*shape)), [SIGNATURE])
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_no_more_is_kept_than_fits_into_the_bound(tmp_path: Path):
    """A thousand records that are each within bounds would be gigabytes together."""
    rows = MAX_BYTES // 3 // 8
    large = filled(rows, 2)

    assert len(read_recorded(write(tmp_path, *[large] * 5), [SIGNATURE])["serving_default"]) == 2


def test_the_checksum_is_that_of_tfrecord():
    """RFC 3720, B.4: 32 bytes of zeros have CRC-32C 0x8A9136AA; TFRecord rotates by 15 and adds a constant."""
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
