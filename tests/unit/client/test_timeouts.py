"""Timeouts as callers give them."""

from __future__ import annotations

import math

import pytest

from inferway_client import Client
from inferway_client.timeouts import MAX_SECONDS, bounded


@pytest.mark.parametrize(("given", "used"), [(0.5, 0.5), (1e10, MAX_SECONDS), (math.inf, MAX_SECONDS)])
def test_a_very_long_timeout_is_not_a_very_short_one(given: float, used: float):
    """What overflows a deadline on the wire would end every call at once."""
    assert bounded(given) == used


@pytest.mark.parametrize("given", [0.0, -1.0, math.nan, -math.inf])
async def test_a_timeout_that_is_none_is_refused(given: float):
    """For the client and for a call alike: a mistake of the caller must not look like a slow server."""
    with pytest.raises(ValueError, match="seconds above 0"):
        Client(timeout=given)
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="seconds above 0"):
            await client.predict("digits", {}, timeout=given)
        with pytest.raises(ValueError, match="seconds above 0"):
            client.stream("digits", timeout=given)
