"""How long a caller is ready to wait, made fit for a deadline on the wire. Pure."""

from __future__ import annotations

MAX_SECONDS = 86_400.0
"""A day. Beyond what gRPC can express a deadline would lie in the past."""


def bounded(seconds: float) -> float:
    """The seconds, a day at most, so that infinity may be given; raises ValueError for nan and unless above zero."""
    if not seconds > 0:
        raise ValueError(f"a timeout is a number of seconds above 0, and not {seconds:g}")
    return min(seconds, MAX_SECONDS)
