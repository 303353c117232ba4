"""The interface between a runner and a framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from inferway.errors import ModelFailed
from inferway_inference.signatures import Signature

EXPORT_ADVICE = "export it with model.export(path)"


class Runtime(Protocol):
    """Executes one version.

    A runtime must obey:

    1. `load` is called once, before any `call`, and both on one thread: a runtime needs no locks.
    2. `load` raises CorruptArtifact, naming the file, if the files are not what they claim to be; VersionLoadFailed
       if they are but cannot be used here; any other error counts as VersionLoadFailed.
    3. `call` is given every input of the signature, of its datatype and shape, and returns at least the outputs that
       are asked for, of the datatypes of the signature. BYTES are object arrays of `bytes`, both ways.
    4. Inputs are read-only and may be overwritten after `call` returned: what is kept must be copied. Outputs must
       stay as they are until the next `call`.
    5. `call` raises ModelFailed, with a `cause` that a caller may see, if the model refuses the input, and can be
       called again after that; `version_at_fault`, if no input can help.
    6. Rows are independent unless the model makes them depend on one another; a runtime never does.
    """

    def load(self, path: Path, threads: int) -> tuple[Signature, ...]:
        """Makes the version in the folder `path` callable, with `threads` threads an operation (0: all cores)."""

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """Computes."""


def version_at_fault(cause: str) -> ModelFailed:
    """The error of a call that no input can help: the version lacks something of its own."""
    return ModelFailed(f"the model lacks what it needs: {cause}", cause=cause, fault="version")


def is_version_at_fault(error: ModelFailed) -> bool:
    """Whether the error was made by `version_at_fault`."""
    return error.metadata.get("fault") == "version"
