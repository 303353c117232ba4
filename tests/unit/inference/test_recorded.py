"""Warm-up requests as TensorFlow Serving records them."""

from __future__ import annotations

from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pytest

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact
from inferway_inference.recorded import FILE, _prediction_log, masked_crc32c, read_recorded
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


def test_the_checksum_is_that_of_tfrecord():
    """RFC 3720, B.4: 32 bytes of zeros have CRC-32C 0x8A9136AA; TFRecord rotates by 15 and adds a constant."""
    crc = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
