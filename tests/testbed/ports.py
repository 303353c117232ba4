"""Free ports for processes that cannot say afterwards which one they took."""

from __future__ import annotations

import os
import random
import socket

BELOW_OUTGOING = range(10_000, 32_000)
"""Systems take the ports of outgoing connections from above these, so that nobody takes one between now and its use."""
OF_UP = (8000, 8001, 8002, 8010, 8011, *range(8020, 8040))
"""What `inferway up` takes, before its offset."""


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that nobody uses now."""
    found: list[int] = []
    for port in random.sample(_own_ports(), 200 + count):
        if len(found) < count and _can_bind(port):
            found.append(port)
    assert len(found) == count, "no free ports"
    return found


def free_port_offset() -> int:
    """An offset at which every port of `inferway up` is free now."""
    own = _own_ports()
    for offset in random.sample(range(own.start - min(OF_UP), own.stop - max(OF_UP)), 200):
        if all(_is_free(port + offset) for port in OF_UP):
            return offset
    raise AssertionError("no free range of ports")


def _own_ports() -> range:
    """Where tests run side by side each process has its own, since what is free for one is free for the other."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(BELOW_OUTGOING) // count
    return BELOW_OUTGOING[number * size : (number + 1) * size]


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
