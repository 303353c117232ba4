"""A tensor as the gateway carries it: named, typed, shaped, and raw bytes that nobody looks into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from inferway.datatypes import Datatype


class Tensor(NamedTuple):
    """One input, checked in part or in full. `raw` is row-major, little-endian, without padding."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    raw: bytes


class OutputTensor(Protocol):
    """One output, in whatever form the link received it: doors copy it into their own protocol once."""

    @property
    def name(self) -> str:
        """Name in the signature."""

    @property
    def datatype(self) -> int:
        """A number of `Datatype`."""

    @property
    def shape(self) -> Sequence[int]:
        """Every dimension."""

    @property
    def raw(self) -> bytes:
        """The elements."""


class Answer(Protocol):
    """What a worker made of an envelope that it could execute."""

    @property
    def outputs(self) -> Iterable[OutputTensor]:
        """In the order of the worker."""

    @property
    def timing(self) -> WorkerTiming:
        """Where the time went in the worker."""


class WorkerTiming(Protocol):
    """Durations are whole microseconds."""

    @property
    def worker_wait_us(self) -> int:
        """Waiting before compute."""

    @property
    def compute_us(self) -> int:
        """In the model."""

    @property
    def batch_rows(self) -> int:
        """Rows of the caller's tenant in the executed batch."""

    @property
    def dispatch_reason(self) -> int:
        """Why the batch was dispatched."""
