"""Records as the bytes of a shared store."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import ITEM_BYTES, Datatype, element_count
from inferway.session.v1.session_record_pb2 import SessionRecord as Message
from inferway_gateway.sessions.codec import Undecodable, decode, encode
from inferway_gateway.sessions.store import Kept, SessionRecord
from inferway_gateway.tensors import Tensor

NAMES = st.text(min_size=1, max_size=8)
IDS = st.integers(0, 2**63 - 1)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(Datatype))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = element_count(shape) * ITEM_BYTES.get(datatype, 5)
    return Tensor(draw(NAMES), datatype, shape, draw(st.binary(min_size=size, max_size=size)))


RECORDS = st.builds(
    SessionRecord,
    key=NAMES,
    endpoint=NAMES,
    version=NAMES,
    signature=NAMES,
    tenant=st.text(max_size=5),
    epoch=IDS,
    rows=st.integers(0, 100),
    state=st.lists(tensors(), max_size=3).map(tuple),
    applied=IDS,
    kept=st.lists(st.builds(Kept, IDS, st.binary(max_size=20)), max_size=3).map(tuple),
)


@given(RECORDS)
def test_what_is_written_is_what_is_read(record: SessionRecord):
    """A bit of state that changes on its way makes every later answer of the session wrong."""
    assert decode(record.key, record.epoch, encode(record)) == record


@given(st.binary(max_size=60))
def test_anything_else_is_undecodable_and_nothing_worse(data: bytes):
    """What stands in the store may come from anybody who can write there."""
    with contextlib.suppress(Undecodable):
        decode("key", 1, data)


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_record_that_was_cut_short_is_undecodable(cut: int):
    """Half a state would be applied as if it were one."""
    state = (Tensor("h", Datatype.FP32, (1, 8), bytes(32)),)
    data = encode(SessionRecord("key", "e", "models/m/versions/1", "serving_default", state=state))

    with pytest.raises(Undecodable):
        decode("key", 1, data[:-cut])


def test_bytes_that_do_not_fill_the_shape_are_undecodable():
    """A worker would refuse them item after item."""
    message = Message(endpoint="e", version="v", signature="s")
    message.state.add(name="h", datatype="DATA_TYPE_FP32", shape=[1, 8], raw=bytes(31))

    with pytest.raises(Undecodable, match="31 bytes"):
        decode("key", 1, message.SerializeToString())


def test_what_a_later_release_adds_is_ignored():
    """Gateways of two releases share a store while a deploy goes on."""
    record = SessionRecord("key", "e", "models/m/versions/1", "serving_default")
    unknown_field = bytes([0xFA, 0x01, 3]) + b"new"  # number 31, a string

    assert decode("key", 1, encode(record) + unknown_field) == record
