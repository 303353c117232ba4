"""What a SavedModel can be asked, read without TensorFlow."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from inferway.datatypes import Datatype
from inferway.errors import CorruptArtifact
from inferway_registry.resources import Signature, TensorSpec
from inferway_registry.savedmodel import read_signatures
from inferway_registry.signatures import forbid_nan
from tests.unit.registry.graphs import FLOAT, INT64, RESOURCE, STRING, saved_model, signature, tensor


def test_signatures_and_tensors_come_by_name():
    """The order is part of the contract: envelopes carry inputs in it."""
    graph = saved_model(
        {
            "z": signature({"b": tensor(STRING, (-1,)), "a": tensor(INT64, ())}, {"y": tensor(shape=None)}),
            "a": signature({}, {"y": tensor(FLOAT, (0, 3))}),
        }
    )

    assert read_signatures(graph) == (
        Signature("a", (), (TensorSpec("y", Datatype.FP32, (0, 3)),)),
        Signature(
            "z",
            (TensorSpec("a", Datatype.INT64, ()), TensorSpec("b", Datatype.BYTES, (-1,))),
            (TensorSpec("y", Datatype.FP32, None),),
        ),
    )


def test_signatures_that_cannot_be_called_are_left_out():
    """Every export carries an initialisation op that is no prediction, whatever its types are."""
    nothing = signature({"x": tensor(RESOURCE)}, {})
    callable_one = signature({"x": tensor()}, {"y": tensor()})
    graph = saved_model({"__saved_model_init_op": callable_one, "train": nothing, "serve": callable_one})

    assert [each.name for each in read_signatures(graph)] == ["serve"]


def test_only_the_graph_for_serving_counts():
    """A SavedModel may hold others, for training or for other devices."""
    both = saved_model({"gpu": signature({}, {"y": tensor()})}, ("serve", "gpu")) + saved_model()

    assert [each.name for each in read_signatures(both)] == ["serving_default"]


def test_nan_is_forbidden_in_every_signature_that_has_the_input():
    """The rule is the publisher's, and a second signature must not be a way around it."""
    both = signature({"x": tensor(), "w": tensor()}, {"y": tensor()})

    marked = forbid_nan(read_signatures(saved_model({"a": both, "b": both})), ("x",))

    assert [[(spec.name, spec.forbid_nan) for spec in each.inputs] for each in marked] == [
        [("w", False), ("x", True)],
        [("w", False), ("x", True)],
    ]


@given(st.binary(max_size=200) | st.binary(max_size=8).map(lambda junk: saved_model()[:40] + junk + saved_model()[40:]))
def test_any_bytes_are_a_model_or_corrupt_and_nothing_else(data: bytes):
    """The file comes from outside; reading it must never raise anything that nobody expects."""
    with contextlib.suppress(CorruptArtifact):
        assert all(each.outputs for each in read_signatures(data))
