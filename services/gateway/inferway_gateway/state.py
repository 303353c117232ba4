"""The state of stateful signatures: what travels to workers as further inputs, and comes back as further outputs.

    item's inputs + state ─► worker ─► outputs + next state

Workers see whole signatures and callers only what is left of them, so neither knows that there is state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from inferway.datatypes import Datatype
from inferway.errors import ModelFailed
from inferway_gateway.signature import Signature
from inferway_gateway.tensors import Answer, OutputTensor, Tensor, WorkerTiming


class StateSpec(NamedTuple):
    """One tensor of the state."""

    input: str
    output: str
    datatype: Datatype
    shape: tuple[int, ...]
    """Of one row, without the batch dimension; the whole shape if the signature has none."""
    initial: bytes
    """One row of it before the first item."""


class PublicAnswer(NamedTuple):
    """An answer without what callers do not see."""

    outputs: Sequence[OutputTensor]
    timing: WorkerTiming


class Stepped(NamedTuple):
    """What became of an item: its answer, and the state that it left."""

    answer: Answer
    state: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class StatePlan:
    """How the state of one signature is put in and taken out."""

    whole: Signature
    """As workers know it."""
    specs: tuple[StateSpec, ...]
    public: Signature = field(init=False)
    """As callers see it."""
    _by_output: Mapping[str, StateSpec] = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError if a tensor of the state is not one of the signature."""
        inputs, outputs = {spec.input for spec in self.specs}, {spec.output for spec in self.specs}
        object.__setattr__(self, "public", self.whole.without(inputs, outputs))
        object.__setattr__(self, "_by_output", {spec.output: spec for spec in self.specs})

    @property
    def kind(self) -> frozenset[tuple[str, Datatype, tuple[int, ...], bool]]:
        """Equal for signatures that can go on with each other's state."""
        return frozenset((spec.input, spec.datatype, spec.shape, self._batched) for spec in self.specs)

    def initial_bytes(self, rows: int) -> int:
        """How many `initial` would take."""
        return sum(len(spec.initial) for spec in self.specs) * (rows if self._batched else 1)

    def initial(self, rows: int) -> tuple[Tensor, ...]:
        """The state before the first item, whose rows it has."""
        return tuple(
            Tensor(spec.input, spec.datatype, self._shape(spec, rows), spec.initial * (rows if self._batched else 1))
            for spec in self.specs
        )

    def inputs(self, public: Sequence[Tensor], state: Iterable[Tensor]) -> list[Tensor]:
        """All inputs, in the order of the whole signature; `public` are in that of the public one."""
        by_name = {tensor.name: tensor for tensor in (*public, *state)}
        return [by_name[spec.name] for spec in self.whole.inputs]

    def outputs(self, asked: Sequence[str]) -> Sequence[str]:
        """What to ask of the worker, so that `asked` and the state come; empty stands for all."""
        return [*asked, *self._by_output] if asked else asked

    def split(self, answer: Answer, rows: int) -> Stepped:
        """Takes the next state out of an answer to `rows` rows.

        Raises ModelFailed if it is not there or has another datatype or shape than it should.
        """
        public, state = list[OutputTensor](), list[Tensor]()
        for output in answer.outputs:
            spec = self._by_output.get(output.name)
            if spec is None:
                public.append(output)
            else:
                state.append(self._checked(spec, output, rows))
        if len(state) != len(self.specs):
            raise ModelFailed("the model left out the state of the session", cause="state missing")
        return Stepped(PublicAnswer(public, answer.timing), tuple(state))

    def _checked(self, spec: StateSpec, output: OutputTensor, rows: int) -> Tensor:
        shape, wanted = tuple(output.shape), self._shape(spec, rows)
        if output.datatype != spec.datatype or shape != wanted:
            raise ModelFailed(
                f"the model's next state {spec.output!r} has shape {list(shape)}; expected {list(wanted)} of "
                f"{spec.datatype.name}",
                cause="state of another shape or datatype",
            )
        return Tensor(spec.input, spec.datatype, shape, output.raw)

    @property
    def _batched(self) -> bool:
        return self.whole.batchable

    def _shape(self, spec: StateSpec, rows: int) -> tuple[int, ...]:
        return (rows, *spec.shape) if self._batched else spec.shape


def state_bytes(state: Iterable[Tensor]) -> int:
    """Of the contents."""
    return sum([len(tensor.raw) for tensor in state])
