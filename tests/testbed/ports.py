"""Free ports for processes that cannot say afterwards which one they took."""

from __future__ import annotations

import random
import socket

BELOW_OUTGOING = range(10_000, 32_000)
"""Systems take the ports of outgoing connections from above these, so that nobody takes one between now and its use."""


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that nobody uses now."""
    found: list[int] = []
    for port in random.sample(BELOW_OUTGOING, 200 + count):
        if len(found) < count and _can_bind(port):
            found.append(port)
    assert len(found) == count, "no free ports"
    return found


def free_port_offset() -> int:
    """An offset at which every port of `inferway up` is free now."""
    for offset in random.sample(range(2000, 23_000), 200):
        if all(_is_free(port + offset) for port in (8000, 8001, 8002, 8010, 8011, *range(8020, 8040))):
            return offset
    raise AssertionError("no free range of ports")


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
