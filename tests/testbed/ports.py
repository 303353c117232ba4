"""Free ports for processes that cannot say afterwards which one they took."""

from __future__ import annotations

import random
import socket


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def free_port_offset() -> int:
    """An offset at which every port of `inferway up` is free now."""
    for offset in random.sample(range(1000, 40000), 200):
        if all(_is_free(port + offset) for port in (8000, 8001, 8002, 8010, 8011, *range(8020, 8040))):
            return offset
    raise AssertionError("no free range of ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
