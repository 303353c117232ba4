"""A leak of every call shows within seconds; one of every thousandth in `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.gateway import servers, soak

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

SECONDS = 10.0
RATE = 100.0
MAX_GROWTH_MIB = 8.0
"""After settling, of some 750 calls with 16 KiB each: 11 MiB if their inputs are kept."""
MAX_HANDLES = 4
"""Pools may still grow in so short a time; calls that keep one each would be hundreds."""


async def test_calls_and_cancelled_calls_leave_nothing_behind(saved_models: Path, tmp_path: Path) -> None:
    """Whoever forgets to let go of a cancelled call is found out here, on both transports."""
    async with servers(saved_models / "litert" / "tiny", tmp_path) as watched:
        await soak(watched, SECONDS, RATE)

    print(*watched, sep="\n")
    for server in watched[:-1]:
        assert server.outcomes.keys() == {"answered", "cancelled"}
        assert min(server.outcomes.values()) > SECONDS * RATE / 20
        assert server.slope_mib * SECONDS / 60 < MAX_GROWTH_MIB
        assert max(server.grown("descriptors"), server.grown("threads")) <= MAX_HANDLES
