"""What a version can be asked, prepared once per snapshot so that checking a request is a few look-ups."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from inferway.datatypes import ITEM_BYTES, Datatype

ANY = -1
"""A dimension of any size."""
MAX_PASSED = 1024
"""Combinations of headers that a signature remembers. Whoever sends more pays for the checks again."""

Headers = tuple[tuple[str, Datatype, tuple[int, ...]], ...]
"""Name, datatype and shape of each input, in the order of the request."""


class Passed(NamedTuple):
    """What the checks found out about headers that passed: requests look alike, and are checked once."""

    sizes: list[int]
    """Bytes of each input."""
    order: tuple[int, ...] | None
    """Where in the request the inputs of the signature are; None if they are in its order."""
    rows: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a signature expects of one tensor. `shape` None: neither the rank nor any size is fixed."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] | None

    @property
    def has_batch_dimension(self) -> bool:
        """The first dimension is of any size, so rows of several requests may be put together."""
        return bool(self.shape) and self.shape[0] == ANY  # type: ignore[index] # bool() excludes None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of `shape` fits. Sizes are not negative."""
        if self.shape is None or self.shape == shape:
            return True
        if len(self.shape) != len(shape):
            return False
        for wanted, size in zip(self.shape, shape, strict=True):  # noqa: SIM110 - a generator costs three times as much
            if wanted not in (ANY, size):
                return False
        return True


@dataclass(frozen=True, slots=True)
class InputPlan:
    """One input with what checking it needs."""

    spec: TensorSpec
    position: int
    """Place in the envelope: inputs go to the worker in the order of the signature."""
    item_bytes: int
    """Bytes an element; 0 if they vary (BYTES)."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One callable of a version. Inputs and outputs are ordered by name."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    plans: dict[str, InputPlan] = field(init=False)
    output_names: frozenset[str] = field(init=False)
    batchable: bool = field(init=False)
    """Every input and every output has a batch dimension. The worker decides whether batching is true to the model."""
    passed: dict[Headers, Passed] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepares the look-ups."""
        plans = {
            spec.name: InputPlan(spec, position, ITEM_BYTES.get(spec.datatype, 0))
            for position, spec in enumerate(self.inputs)
        }
        object.__setattr__(self, "plans", plans)
        object.__setattr__(self, "output_names", frozenset(spec.name for spec in self.outputs))
        object.__setattr__(self, "batchable", _all_have_batch_dimension((*self.inputs, *self.outputs)))

    def without(self, inputs: Collection[str], outputs: Collection[str]) -> Signature:
        """The same for callers who see only the other tensors. Raises ValueError if one of these is not there."""
        if not (self.plans.keys() >= set(inputs) and self.output_names >= set(outputs)):
            raise ValueError(f"signature {self.name} has not all of {', '.join((*inputs, *outputs))}")
        rest = Signature(
            self.name,
            tuple(spec for spec in self.inputs if spec.name not in inputs),
            tuple(spec for spec in self.outputs if spec.name not in outputs),
        )
        object.__setattr__(rest, "batchable", self.batchable)
        return rest

    def remember(self, headers: Headers, passed: Passed) -> None:
        """These headers have passed all checks."""
        if len(self.passed) >= MAX_PASSED:
            self.passed.clear()
        self.passed[headers] = passed


def _all_have_batch_dimension(specs: Iterable[TensorSpec]) -> bool:
    found = list(specs)
    return bool(found) and all(spec.has_batch_dimension for spec in found)
