"""Requests for `echo`, and what errors look like to a caller."""

from __future__ import annotations

import struct
from collections.abc import Awaitable
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from grpc import aio

from inferway.errors import InferwayError
from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.status import from_status
from inferway.type.v1.tensor_pb2 import DATA_TYPE_FP32, Tensor

ROW = struct.pack("<4f", 1, 2, 3, 4)


def tensor(
    name: str = "x", raw: bytes = ROW, shape: tuple[int, ...] = (1, 4), datatype: int = DATA_TYPE_FP32
) -> Tensor:
    """An input of `echo`."""
    return Tensor(name=name, datatype=datatype, shape=shape, raw=raw)  # type: ignore[arg-type]


def predict_request(endpoint: str = "echo", **fields: Any) -> pb.PredictRequest:
    """A prediction that succeeds unless told otherwise."""
    target = fields.pop("target", pb.Target(endpoint=endpoint))
    return pb.PredictRequest(target=target, inputs=fields.pop("inputs", [tensor()]), **fields)


async def refusal_of(call: Awaitable[object]) -> InferwayError:
    """The typed error that `call` ends with."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    for key, value in caught.value.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            error = from_status(Status.FromString(value))
            assert error.code == caught.value.code().name
            return error
    pytest.fail(f"no typed error: {caught.value}")
