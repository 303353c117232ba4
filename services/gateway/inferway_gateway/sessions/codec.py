"""Records as the bytes that a shared store keeps: `inferway.session.v1.SessionRecord`."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from inferway.datatypes import ITEM_BYTES, Datatype, element_count
from inferway.session.v1.session_record_pb2 import KeptResult
from inferway.session.v1.session_record_pb2 import SessionRecord as Message
from inferway.type.v1 import tensor_pb2
from inferway_gateway.sessions.store import Kept, SessionRecord
from inferway_gateway.tensors import Tensor


class Undecodable(Exception):
    """The bytes are no record."""


def encode(record: SessionRecord) -> bytes:
    """All of it but key and epoch, which stores keep beside it."""
    return Message(
        endpoint=record.endpoint,
        version=record.version,
        signature=record.signature,
        tenant=record.tenant,
        rows=record.rows,
        state=[
            tensor_pb2.Tensor(name=name, datatype=tensor_pb2.DataType.ValueType(datatype), shape=shape, raw=raw)
            for name, datatype, shape, raw in record.state
        ],
        applied_item=record.applied,
        kept=[KeptResult(item_id=item, result=result) for item, result in record.kept],
    ).SerializeToString()


def decode(key: str, epoch: int, data: bytes) -> SessionRecord:
    """The reverse of `encode`. Raises Undecodable."""
    try:
        message = Message.FromString(data)
        state = tuple(_tensor(tensor) for tensor in message.state)
    except (DecodeError, ValueError) as error:
        raise Undecodable(str(error)) from error
    if not message.version:
        raise Undecodable("it names no version")
    return SessionRecord(
        key=key,
        endpoint=message.endpoint,
        version=message.version,
        signature=message.signature,
        tenant=message.tenant,
        epoch=epoch,
        rows=message.rows,
        state=state,
        applied=message.applied_item,
        kept=tuple(Kept(kept.item_id, kept.result) for kept in message.kept),
    )


def _tensor(message: tensor_pb2.Tensor) -> Tensor:
    datatype, shape = Datatype(message.datatype), tuple(message.shape)
    if datatype in ITEM_BYTES and len(message.raw) != element_count(shape) * ITEM_BYTES[datatype]:
        raise ValueError(f"{len(message.raw)} bytes are no {datatype.name} of shape {list(shape)}")
    return Tensor(message.name, datatype, shape, message.raw)
