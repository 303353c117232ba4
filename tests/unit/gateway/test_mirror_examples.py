"""The worst pairs are shown to people: few, short, and no more of them than the policy permits."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from inferway.datatypes import Datatype
from inferway_gateway.rollouts.examples import MAX_CHARACTERS, MAX_EXAMPLES, Examples, Subject, text_of
from inferway_gateway.rollouts.mirror_messages import to_mirror_outcomes
from inferway_gateway.rollouts.plan import ExamplePolicy
from inferway_gateway.tensors import Tensor
from tests.unit.gateway.bench import V1
from tests.unit.gateway.mirror_bench import V2, MirrorBench, answered, plan


def subject(prediction_id: str = "p") -> Subject:
    """A request with one input and two answers."""
    return Subject(prediction_id, [_floats("x", [1.0])], [_floats("y", [2.0])], [_floats("y", [3.0])])


def _floats(name: str, values: list[float]) -> Tensor:
    return Tensor(name, Datatype.FP32, (len(values),), np.array(values, "<f4").tobytes())


def _texts(*texts: bytes) -> Tensor:
    raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return Tensor("t", Datatype.BYTES, (len(texts),), raw)


def test_the_worst_are_kept_worst_first() -> None:
    """People look at the top of a list."""
    examples = Examples(ExamplePolicy.OUTPUTS)
    for number in range(100):
        examples.offer(float(number * 37 % 100), subject(str(number)))
    examples.offer(inf, subject("strange"))

    assert [example.distance for example in examples.worst] == [inf, *range(99, 99 - MAX_EXAMPLES + 1, -1)]
    assert examples.worst[0].prediction_id == "strange"


@pytest.mark.parametrize(
    ("policy", "prediction_id", "roles"),
    [
        (ExamplePolicy.REDACTED, "", []),
        (ExamplePolicy.OUTPUTS, "p", ["primary", "mirrored"]),
        (ExamplePolicy.INPUTS_AND_OUTPUTS, "p", ["input", "primary", "mirrored"]),
    ],
)
def test_no_more_is_kept_than_the_policy_permits(policy: ExamplePolicy, prediction_id: str, roles: list[str]) -> None:
    """Requests may be about people: what was not asked for must not be stored."""
    examples = Examples(policy)
    examples.offer(1.0, subject())

    assert examples.worst[0].prediction_id == prediction_id
    assert [tensor.role for tensor in examples.worst[0].tensors] == roles


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (_floats("y", [0.1, 1e-9, float("nan"), 123456.789]), "[0.1, 1e-09, nan, 123457]"),
        (_floats("y", [0.5] * 17), f"[{'0.5, ' * 16}…]"),
        (Tensor("y", Datatype.INT64, (2,), np.array([-1, 2**40], "<i8").tobytes()), f"[-1, {2**40}]"),
        (Tensor("y", Datatype.BOOL, (2,), b"\x01\x00"), "[true, false]"),
        (_texts(b"cat", b"\xff", b"a" * 40), f"['cat', '\ufffd', '{'a' * 32}…']"),
        (Tensor("y", Datatype.FP32, (0, 3), b""), "[]"),
        (Tensor("y", Datatype.FP32, (), np.array(2.5, "<f4").tobytes()), "[2.5]"),
        (Tensor("y", Datatype.FP32, (3,), np.array(2.5, "<f4").tobytes() + b"?"), "[2.5, …]"),
        (Tensor("y", Datatype.FP32, (3,), b""), "[…]"),
    ],
    ids=["floats", "many", "integers", "booleans", "texts", "none", "a scalar", "too few", "missing"],
)
def test_elements_are_shown_as_people_write_them(tensor: Tensor, text: str) -> None:
    """Short enough for a terminal, whatever they are."""
    assert text_of(tensor) == text


def test_what_is_shown_of_a_tensor_is_bounded() -> None:
    """The registry refuses reports that are too large, and then nothing is judged at all."""
    text = text_of(_texts(*[bytes(32)] * 16))

    assert len(text) == MAX_CHARACTERS + len("[, …]")
    assert text.endswith(", …]")


async def test_the_registry_is_told_all_of_it() -> None:
    """It adds up gateways, so it needs what can be added."""
    bench = MirrorBench(plan(examples=ExamplePolicy.INPUTS_AND_OUTPUTS))
    bench.pair(answered(0.25, 0.75), answered(0.75, 0.25))
    bench.pair(answered(0.25, 0.75), answered(0.25, 0.75))
    bench.figures.dropped = 7
    message = to_mirror_outcomes(bench.figures)
    figures, (output,), (example,) = message.figures, message.figures.outputs, message.figures.examples

    assert (figures.primary_version, figures.mirrored_version) == (V1, V2)
    assert (figures.pairs, figures.agreeing, figures.dropped) == (2, 1, 7)
    assert (output.output, output.pairs, output.within_tolerance) == ("y", 2, 1)
    assert (output.rows, output.same_top_rows, output.max_absolute) == (2, 1, 0.5)
    assert list(message.elements) == [4]
    assert output.mean_absolute == pytest.approx(0.25)
    assert output.mean_divergence == pytest.approx(0.5 * 0.5 * np.log(3))
    assert list(message.primary_latency.counts) == list(message.mirrored_latency.counts) == [2]
    assert (example.prediction_id, example.distance, example.tensors[1].elements) == ("p", 0.5, "[0.25, 0.75]")
