"""The hop between registry and gateway breaks in every way; traffic does not notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.testbed.calls import traffic
from tests.testbed.fault_proxy import FaultProxy
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

BREAKS = (FaultProxy.cut, FaultProxy.refuse, FaultProxy.hold)


async def test_predictions_go_on_while_the_way_to_the_registry_is_broken(saved_models: Path, tmp_path: Path) -> None:
    """Resets, refusals and black holes cost no call, and a version published meanwhile arrives when the way is free."""
    stack = Stack(tmp_path)
    async with FaultProxy(stack.registry.target) as proxy:
        stack.redirect(stack.gateway, proxy.address)
        try:
            await asyncio.to_thread(stack.start)
            await asyncio.to_thread(publish, stack.registry.target, "tiny", saved_models / "tiny")
            await asyncio.to_thread(stack.gateway.wait_serving, "model/tiny")
            async with traffic(stack.gateway.target) as calls:
                for break_it in BREAKS:
                    break_it(proxy)
                    await calls.until("version 1", 50)
                await asyncio.to_thread(publish, stack.registry.target, "tiny", saved_models / "tiny")
                await calls.until("version 1", 50)
                proxy.restore()
                await calls.until("version 2", 10)
        finally:
            await asyncio.to_thread(stack.end)

    assert calls.failures == {}
    assert proxy.connections > 0
