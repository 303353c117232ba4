"""Bounds what waits for its turn: items of sessions and sequences, of which one at a time is on its way."""

from __future__ import annotations

from collections.abc import Iterable

from inferway.errors import MemoryPressure
from inferway_gateway.tensors import Tensor


class Waiting:
    """Bytes of the inputs of items that are not answered."""

    def __init__(self, max_bytes: int) -> None:
        """At most so many; a single item is taken in any case."""
        self._max_bytes = max_bytes
        self._bytes = 0

    def take(self, inputs: Iterable[Tensor]) -> int:
        """Counts an item, until as many bytes as this returns are given back. Raises MemoryPressure."""
        byte_count = sum([len(tensor.raw) for tensor in inputs])
        if self._bytes and self._bytes + byte_count > self._max_bytes:
            raise MemoryPressure(f"{self._bytes} bytes wait for their turn already, of {self._max_bytes} at most")
        self._bytes += byte_count
        return byte_count

    def give_back(self, byte_count: int) -> None:
        """Those of items that were answered or given up."""
        self._bytes -= byte_count
