"""Time as an argument: whoever needs a clock takes one, so that tests can turn it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds on a clock that never goes back; only differences mean anything."""

monotonic: Clock = time.monotonic
