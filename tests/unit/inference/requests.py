"""Requests for unit tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferway.datatypes import Datatype
from inferway_inference.signatures import Signature, TensorSpec
from inferway_inference.tensors import Tensor
from inferway_inference.work import Answer, Part, Request

BATCHABLE = Signature.of(
    "serving_default", [TensorSpec("x", Datatype.FP32, (-1, -1))], [TensorSpec("y", Datatype.FP32, (-1, -1))]
)
SINGLE = Signature.of("single", [TensorSpec("x", Datatype.FP32, (-1, -1))], [TensorSpec("y", Datatype.FP32, ())])


def floats(rows: int, width: int = 2, seed: int = 0) -> Tensor:
    """An FP32 tensor `x`."""
    values = np.random.default_rng(seed).random((rows, width), "f4")
    return Tensor("x", Datatype.FP32, (rows, width), values.tobytes())


def whole(*requests: Request) -> list[Part]:
    """The requests as parts of a batch, none of them split."""
    for one in requests:
        one.parts = (Part(one, one.deadline, one.rows, one.byte_count, one.criticality, one.tenant),)
    return [one.parts[0] for one in requests]


def ignore(request: Request, answer: Answer) -> None:
    """A reply that nobody reads."""


def admitted(request_id: int, rows: int = 1, signature: Signature = BATCHABLE, **fields: Any) -> Request:
    """A request as the scheduler gets it: checked, with a key."""
    values: dict[str, Any] = {
        "deadline": 1000.0,
        "received_at": 0.0,
        "reply": ignore,
        "key": signature.name,
        "curve": (signature.name, ()),
        **fields,
    }
    return Request(
        id=request_id,
        version="models/m/versions/1",
        signature_name=signature.name,
        inputs=[],
        output_names=[],
        claimed_rows=rows,
        rows=rows,
        signature=signature,
        outputs=(0,),
        **values,
    )
