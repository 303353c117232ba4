"""What the signatures of every kind of model file must hold to, and how their readers say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferway.datatypes import FLOATING, MAX_RANK, Datatype
from inferway.errors import CorruptArtifact, InvalidField
from inferway_registry.resources import Signature, TensorSpec
from inferway_registry.wording import has_control_characters, listed, shown

MAX_SIGNATURES = 100
MAX_TENSORS = 1_000
MAX_NAME_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Reading:
    """The reading of one file: whatever is wrong is said of it."""

    file: str

    def corrupt(self, problem: str) -> CorruptArtifact:
        """The error that names the file."""
        return CorruptArtifact(f"{self.file}: {problem}", path=self.file)

    def check_name(self, name: str, what: str) -> None:
        """Raises CorruptArtifact for an empty or very long name of `what`, or one that a terminal would obey."""
        if not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise self.corrupt(f"{what} has a name of {len(name)} characters; expected 1 to {MAX_NAME_CHARACTERS}")
        if has_control_characters(name):
            raise self.corrupt(f"{what} has the name {shown(repr(name))}; control characters are not permitted")

    def check_count(self, count: int, where: str) -> None:
        """Raises CorruptArtifact for more tensors than a signature may have."""
        if count > MAX_TENSORS:
            raise self.corrupt(f"{where} has {count} tensors; at most {MAX_TENSORS} are permitted")

    def spec(self, name: str, datatype: Datatype, shape: Sequence[int] | None, where: str) -> TensorSpec:
        """A tensor that a request can carry; raises CorruptArtifact if none can."""
        self.check_name(name, f"a tensor of {where}")
        if shape is None:
            return TensorSpec(name, datatype, None)
        if len(shape) > MAX_RANK:
            raise self.corrupt(
                f"tensor {name!r} of {where} has {len(shape)} dimensions; at most {MAX_RANK} are permitted"
            )
        if any(size < -1 for size in shape):
            raise self.corrupt(f"tensor {name!r} of {where} has a dimension below -1")
        return TensorSpec(name, datatype, tuple(shape))


def forbid_nan(signatures: tuple[Signature, ...], inputs: tuple[str, ...]) -> tuple[Signature, ...]:
    """Marks the inputs in which NaN is refused; raises InvalidField for one that no signature has, or that has none."""
    for index, name in enumerate(inputs):
        found = [spec for signature in signatures for spec in signature.inputs if spec.name == name]
        field = f"config.forbid_nan_inputs[{index}]"
        if not found:
            known = sorted({spec.name for signature in signatures for spec in signature.inputs})
            raise InvalidField.at(field, f"no signature has an input {name!r}; inputs are {listed(known)}")
        if any(spec.datatype not in FLOATING for spec in found):
            raise InvalidField.at(field, f"{name!r} is not floating point and cannot hold NaN")
    return tuple(
        replace(
            signature,
            inputs=tuple(replace(spec, forbid_nan=spec.name in inputs) for spec in signature.inputs),
        )
        for signature in signatures
    )
