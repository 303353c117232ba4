"""How long the scenarios are: short in `make test`, as written in docs/reliability.md in `make chaos`."""

from __future__ import annotations

import os

LONG = os.environ.get("INFERWAY_CHAOS") == "long"
RATE = 300 if LONG else 150
"""Unary calls a second."""
STREAMS = 50 if LONG else 10


def seconds(long: float, short: float) -> float:
    """Of load, in the form that runs now."""
    return long if LONG else short


def rounds(long: int, short: int) -> int:
    """Repetitions, in the form that runs now."""
    return long if LONG else short
