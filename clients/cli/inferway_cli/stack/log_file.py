"""A process's output in a file that cannot grow without end: the last is kept beside it as `.1`."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
TAIL_LINES = 20


class LogFile:
    """Appends; `last_line` is for telling why a process ended."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """Goes on after what is there."""
        self.path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab")
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        return next((line for line in reversed(self._tail) if line), "it said nothing")

    async def copy(self, stream: asyncio.StreamReader) -> None:
        """Copies a process's output until it ends."""
        while chunk := await stream.read(64 * 1024):
            self.write(chunk)

    def write(self, chunk: bytes) -> None:
        """Appends; begins anew when the file is full."""
        if self._file.tell() > self._max_bytes:
            self._file.close()
            self.path.replace(self.path.with_suffix(self.path.suffix + ".1"))
            self._file = self.path.open("ab")
        self._file.write(chunk)
        self._file.flush()
        self._tail.extend(line.strip() for line in chunk.decode(errors="replace").splitlines())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
