"""Memory that two processes share, for tensors too large for a socket.

An arena has one writer and one reader, who take turns: the reader is told where to look by a frame on the control
socket, and the writer does not touch the arena again before the reader has answered. It is a memfd, inherited when
the runner is started, so it has no name to leak and goes away with the last process that holds it. The writer grows
it; the reader maps again when it is told of bytes beyond its mapping.
"""

from __future__ import annotations

import mmap
import os

KEPT_BYTES = 64 * 1024 * 1024
"""An arena that grew beyond this shrinks again at the next smaller use."""
_STEP = 1024 * 1024


class Arena:
    """One end of shared memory."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over; nothing is mapped yet."""
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._size = 0

    @classmethod
    def create(cls, name: str) -> Arena:
        """New, empty shared memory. `name` shows up in /proc only."""
        return cls(os.memfd_create(name))

    def for_writing(self, size: int) -> memoryview:
        """At least `size` bytes to write to, valid until the next call. Raises OSError when memory is short."""
        if size > self._size or (self._size > KEPT_BYTES and size < self._size // 4):
            rounded = -(-size // _STEP) * _STEP
            os.ftruncate(self.descriptor, rounded)
            self._map, self._size = mmap.mmap(self.descriptor, rounded), rounded
        assert self._map is not None
        return memoryview(self._map)

    def for_reading(self, size: int) -> memoryview:
        """The first `size` bytes as the other end wrote them, valid until it is answered."""
        if self._map is None or size > self._size:
            actual = os.fstat(self.descriptor).st_size
            if size > actual:
                message = f"told of {size} bytes in shared memory of {actual}"
                raise ValueError(message)
            self._map, self._size = mmap.mmap(self.descriptor, actual), actual
        return memoryview(self._map)[:size]

    def close(self) -> None:
        """Lets go; the mapping ends with the last view of it."""
        self._map = None
        os.close(self.descriptor)
