"""A worker ends at the worst moment: it has computed, and nobody knows. See inferway_chassis.failpoints."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from inferway.registry.v1 import resources_pb2
from inferway_chassis.failpoints import VARIABLE
from tests.chaos.acts import start
from tests.chaos.conftest import VERSION
from tests.chaos.lengths import RATE, rounds
from tests.testbed.load import plain_calls, steady
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(300)]

AFTER_COMPUTING = "link.answer=kill@5"


async def publish_once(stack: Stack, model: Path) -> None:
    """Publishes it as `once`, whose predictions may change the world."""
    config = resources_pb2.VersionConfig(isolation=resources_pb2.ISOLATION_INLINE, idempotent=False)
    runtime = resources_pb2.RUNTIME_LITERT
    await asyncio.to_thread(publish, stack.registry.target, "once", model, config=config, runtime=runtime)
    for worker in stack.workers:
        await asyncio.to_thread(worker.wait_serving, "model/once@1")
    await asyncio.to_thread(stack.gateway.wait_serving, "model/once")


async def test_an_answer_that_dies_with_its_worker_is_computed_again_only_where_that_is_harmless(
    trio: Stack, saved_models: Path
) -> None:
    """Most models only compute, and no caller learns of it; of one that acts, its caller is told, and decides."""
    await publish_once(trio, saved_models / "litert" / "tiny")
    async with (
        plain_calls(trio.gateway.target) as harmless,
        plain_calls(trio.gateway.target, "once") as acting,
        steady(harmless, RATE) as calls,
        steady(acting, RATE / 2) as acts,
    ):
        for number in range(rounds(long=5, short=1)):
            worker = trio.workers[number % 3]
            before = worker.environment
            await asyncio.to_thread(worker.kill)
            worker.environment = {**before, VARIABLE: AFTER_COMPUTING}
            worker.start()
            assert await asyncio.to_thread(worker.wait, 60.0) == -signal.SIGKILL
            await start(worker, VERSION, before)
        await calls.answers(RATE)

    calls.report("workers killed between computing and answering")
    acts.report("the same of a model that is not idempotent")
    assert calls.failures == {}
    assert acts.failures.keys() <= {"WORKER_LOST"}
