"""A child process of the event loop, without fork handlers.

asyncio and uvloop start children by fork, and gRPC's fork handlers then run in the child beside threads that are not
there: some children crash before they exec. `subprocess` uses vfork, which runs no handlers, and a pidfd tells the
event loop of the end without a thread or a signal handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

_STDERR_LINES = 40


class Child(asyncio.Protocol):
    """One Python process; its stderr is a pipe of which the last lines are kept."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Use `start`."""
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._rest = b""
        self.stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        """Frameworks talk a lot and seldom say anything: only for the log of a crash."""

    @classmethod
    async def start(cls, arguments: Sequence[str], descriptors: Sequence[int]) -> Child:
        """Runs this interpreter with `arguments` and the open `descriptors`. Raises OSError."""
        child = cls(_spawn(arguments, descriptors))
        pidfd = os.pidfd_open(child.pid)
        child._loop.add_reader(pidfd, child._reap, pidfd)
        await child._loop.connect_read_pipe(lambda: child, child._process.stderr)
        return child

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def exited(self, timeout_seconds: float) -> int | None:
        """The exit status, negative for a signal, once the process has ended; None if it has not by then."""
        done, _ = await asyncio.wait([self._exited], timeout=timeout_seconds)
        return self._exited.result() if done else None

    def kill(self) -> None:
        """Ends the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def data_received(self, data: bytes) -> None:
        """Of its stderr."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.stderr.extend(line.decode(errors="replace") for line in lines)

    def _reap(self, pidfd: int) -> None:
        """In a thread: the kernel takes up to 50 ms to let go of a large process, and nobody here may wait so long."""
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._loop.run_in_executor(None, self._process.wait).add_done_callback(self._reaped)

    def _reaped(self, waited: asyncio.Future[int]) -> None:
        if not self._exited.done():
            self._exited.set_result(waited.result())


def describe_status(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _spawn(arguments: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, *arguments],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
