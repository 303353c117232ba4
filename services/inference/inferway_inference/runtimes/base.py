"""The interface between a runner and a framework."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from inferway.errors import InvalidField, ModelFailed
from inferway_inference.signatures import Signature

EXPORT_ADVICE = "export it with model.export(path)"
_MAX_CAUSE = 300
_PATH = re.compile(r"(?<![\w.])(/[\w.+-]+){2,}/?(:\d+)?|[\w.+/-]+/[\w.+-]+\.(cc|cu|h|py)(:\d+)?")
"""Absolute paths, and those of a framework's own source files; names of a graph's nodes have slashes as well."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a version computes, and how it uses that device."""

    device: str = "cpu"
    """`cpu`, or `gpu:N` for the N-th GPU that the process sees."""
    memory_growth: bool = True
    """GPU memory is taken as it is needed; otherwise nearly all of the device's at once."""
    xla: bool = False
    """Clusters of operations are compiled for each shape that comes; only TensorFlow on a GPU heeds it."""

    @property
    def gpu(self) -> int | None:
        """Number of the GPU; None for the CPU. Raises InvalidField for what is neither."""
        if self.device == "cpu":
            return None
        kind, separator, number = self.device.partition(":")
        if kind != "gpu" or not separator or not (number.isascii() and number.isdigit()):
            raise InvalidField.at("device", f"{self.device!r} is neither cpu nor gpu:N")
        return int(number)


CPU = Placement()


class Runtime(Protocol):
    """Executes one version.

    A runtime must obey:

    1. `load` is called once, before any `call`; `close` once, after the last has returned.
    2. `load` raises CorruptArtifact, naming the file, if the files are not what they claim to be; VersionLoadFailed
       if they are but cannot be used here; any other error counts as VersionLoadFailed.
    3. `call` is given every input of the signature, of its datatype and shape, and returns at least the outputs that
       are asked for, of the datatypes of the signature. BYTES are object arrays of `bytes`, both ways.
    4. Inputs are read-only and may be overwritten after `call` returned: what is kept must be copied. Outputs must
       stay as they are until the same thread's next `call`.
    5. `call` raises ModelFailed, with a `cause` that a caller may see, if the model refuses the input, and can be
       called again after that; `version_at_fault`, if no input can help.
    6. Rows are independent unless the model makes them depend on one another; a runtime never does.
    7. Several threads may `call` at once, and none waits for another: what a framework cannot share, the runtime has
       as often as there were callers at once. While the framework computes, other Python threads run.
    """

    def load(self, path: Path, threads: int, placement: Placement = CPU) -> tuple[Signature, ...]:
        """Makes the version in the folder `path` callable, with `threads` threads an operation (0: all cores)."""

    def call(
        self, signature: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> Mapping[str, NDArray[Any]]:
        """Computes."""

    def close(self) -> None:
        """Gives back what `load` and calls took, as far as the framework does; for a process that goes on."""


def version_at_fault(cause: str) -> ModelFailed:
    """The error of a call that no input can help: the version lacks something of its own."""
    return ModelFailed(f"the model lacks what it needs: {cause}", cause=cause, fault="version")


def is_version_at_fault(error: ModelFailed) -> bool:
    """Whether the error was made by `version_at_fault`."""
    return error.metadata.get("fault") == "version"


def plain_cause(text: str) -> str:
    """The first line of a framework's own words that has any, without paths of this or its build machine.

    It may quote the input. That is the caller's own: a batch that fails is never answered, its requests run alone.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return _PATH.sub("…", line)[:_MAX_CAUSE]
