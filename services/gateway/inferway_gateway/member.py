"""`python -m inferway_gateway.member`: one of several gateway processes on one port, as `processes.py` starts them.

Its standard input is a socket to the parent: it says when it listens, answers with its metrics when asked, and leaves,
draining, when the parent is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, generate_latest

from inferway_chassis.process import Process, main
from inferway_chassis.server import Server
from inferway_gateway.app import running
from inferway_gateway.settings import GatewaySettings

READY = b"r"
HEADER = struct.Struct("!BI")
"""Of an answer: the number of the question, which is one byte, and how many bytes follow."""

_LOG = logging.getLogger(__name__)


@asynccontextmanager
async def running_member(settings: GatewaySettings, process: Process) -> AsyncIterator[Server]:
    """As `app.running`, and the parent is told."""
    async with running(settings, process) as server:
        parent = Parent(process.telemetry.registry)
        server.on_drain(parent.leaves)
        parent.start()
        yield server


class Parent:
    """The other end of the socket."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Nothing is said yet."""
        self._socket, self._registry = socket.socket(fileno=os.dup(0)), registry
        self._leaving = False

    def start(self) -> None:
        """Says that this process listens, and answers from now on."""
        self._socket.sendall(READY)
        threading.Thread(target=self._answer, name="parent", daemon=True).start()

    async def leaves(self) -> None:
        """This process drains: it need not be told to."""
        self._leaving = True

    def _answer(self) -> None:
        try:
            while question := self._socket.recv(1):
                text = self._metrics()
                self._socket.sendall(HEADER.pack(question[0], len(text)) + text)
        except OSError:
            pass
        if not self._leaving:
            os.kill(os.getpid(), signal.SIGTERM)

    def _metrics(self) -> bytes:
        try:
            return generate_latest(self._registry)
        except Exception:  # noqa: BLE001 - a scrape must not end the thread
            _LOG.exception("the metrics cannot be shown")
            return b""


if __name__ == "__main__":
    raise SystemExit(main(GatewaySettings, running_member))
