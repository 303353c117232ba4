"""`python -m inferway_gateway.member`: one of several gateway processes on one port, as `processes.py` starts them.

Its standard input is a socket to the parent: it says when it listens, answers with its metrics when asked, and leaves,
draining, when the parent is gone.
"""

from __future__ import annotations

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

READY, ASK = b"r", b"m"
LENGTH = struct.Struct("!I")


@asynccontextmanager
async def running_member(settings: GatewaySettings, process: Process) -> AsyncIterator[Server]:
    """As `app.running`, and the parent is told."""
    async with running(settings, process) as server:
        parent = socket.socket(fileno=os.dup(0))
        parent.sendall(READY)
        threading.Thread(target=_answer, args=(parent, process.telemetry.registry), daemon=True).start()
        yield server


def _answer(parent: socket.socket, registry: CollectorRegistry) -> None:
    try:
        while parent.recv(len(ASK)):
            text = generate_latest(registry)
            parent.sendall(LENGTH.pack(len(text)) + text)
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(GatewaySettings, running_member))
