"""The pairs of answers that differ most, as much of them as the rollout's policy permits to keep. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from inferway.datatypes import ITEM_BYTES, Datatype, element_count
from inferway_gateway.rollouts.compare import numbers
from inferway_gateway.rollouts.plan import ExamplePolicy
from inferway_gateway.tensors import Tensor

MAX_EXAMPLES = 10
MAX_ELEMENTS = 16
"""Of each tensor."""
MAX_TENSORS = 8
"""Of inputs, and of each answer."""
MAX_TEXT_BYTES = 32
"""Of an element of BYTES."""
MAX_CHARACTERS = 320
"""Of a tensor as it is shown: the registry takes no larger report than it can keep."""
_LEAST_BYTES = 4
"""Of an element of BYTES: its length."""


class ExampleTensor(NamedTuple):
    """The first elements of a tensor."""

    name: str
    role: str
    """`input`, `primary` or `mirrored`."""
    elements: str


class Example(NamedTuple):
    """A pair that differs."""

    prediction_id: str
    """Of the primary's answer; empty where nothing of single requests is kept."""
    distance: float
    """The largest |candidate - stable| of all outputs; infinite where there is no number for it."""
    tensors: tuple[ExampleTensor, ...]


class Subject(NamedTuple):
    """A request with both answers."""

    prediction_id: str
    inputs: Sequence[Tensor]
    """Empty unless the policy keeps inputs."""
    primary: Sequence[Tensor]
    mirrored: Sequence[Tensor]


class Examples:
    """At most MAX_EXAMPLES of them, worst first; of those that differ alike the first to come."""

    def __init__(self, policy: ExamplePolicy) -> None:
        """None yet."""
        self._policy = policy
        self.worst: list[Example] = []

    def offer(self, distance: float, subject: Subject) -> None:
        """A pair whose answers differ so much."""
        if len(self.worst) == MAX_EXAMPLES and distance <= self.worst[-1].distance:
            return
        self.worst.append(_example(distance, subject, self._policy))
        self.worst.sort(key=lambda example: -example.distance)
        del self.worst[MAX_EXAMPLES:]


def _example(distance: float, subject: Subject, policy: ExamplePolicy) -> Example:
    if policy is ExamplePolicy.REDACTED:
        return Example("", distance, ())
    tensors = [*_shown(subject.primary, "primary"), *_shown(subject.mirrored, "mirrored")]
    if policy is ExamplePolicy.INPUTS_AND_OUTPUTS:
        tensors = [*_shown(subject.inputs, "input"), *tensors]
    return Example(subject.prediction_id, distance, tuple(tensors))


def _shown(tensors: Iterable[Tensor], role: str) -> list[ExampleTensor]:
    return [ExampleTensor(tensor.name, role, text_of(tensor)) for tensor in list(tensors)[:MAX_TENSORS]]


def text_of(tensor: Tensor) -> str:
    """The first elements, row by row, for example `[0.1, 0.9, …]`; those that are there, whatever the shape says."""
    there = len(tensor.raw) // ITEM_BYTES.get(tensor.datatype, _LEAST_BYTES)
    count = max(0, min(element_count(tensor.shape), MAX_ELEMENTS, there))
    text = ", ".join(_WORDS.get(tensor.datatype, _integers)(tensor, count))
    is_whole = element_count(tensor.shape) <= count and len(text) <= MAX_CHARACTERS
    rest = "" if is_whole else ", …" if text else "…"
    return f"[{text[:MAX_CHARACTERS]}{rest}]"


def _integers(tensor: Tensor, count: int) -> Iterator[str]:
    return (str(int(number)) for number in numbers(tensor.datatype, tensor.raw, count))


def _decimals(tensor: Tensor, count: int) -> Iterator[str]:
    return (f"{number:.6g}" for number in numbers(tensor.datatype, tensor.raw, count))


def _truths(tensor: Tensor, count: int) -> Iterator[str]:
    return ("true" if number else "false" for number in numbers(tensor.datatype, tensor.raw, count))


def _texts(tensor: Tensor, count: int) -> Iterator[str]:
    """Elements of BYTES: four bytes of length before each."""
    raw, start = tensor.raw, 0
    for _ in range(count):
        length = int.from_bytes(raw[start : start + 4], "little")
        text = raw[start + 4 : start + 4 + min(length, MAX_TEXT_BYTES)].decode(errors="replace")
        yield repr(text + ("…" if length > MAX_TEXT_BYTES else ""))
        start += 4 + length


_WORDS: dict[Datatype, Callable[[Tensor, int], Iterator[str]]] = {
    Datatype.BOOL: _truths,
    Datatype.BYTES: _texts,
    Datatype.FP16: _decimals,
    Datatype.FP32: _decimals,
    Datatype.FP64: _decimals,
    Datatype.BF16: _decimals,
}
