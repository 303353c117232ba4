"""Workers freeze, vanish behind a network that swallows everything, or are sent what kills them; calls are answered."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from grpc import aio

from inferway_gateway.roster import SLOW_START_SECONDS
from inferway_inference.runtimes.fake import DEADLY, EXTRA, FILE
from tests.chaos.lengths import rounds, seconds
from tests.testbed.calls import CALL_SECONDS, decoded, model_infer, tiny_request
from tests.testbed.fault_proxy import FaultProxy
from tests.testbed.load import Figures, Send, steady
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.tensorflow, pytest.mark.slow]

MODEL, VERSION = "affine", "model/affine@1"
RATE = 200
CALLS_FOR_EACH = int(RATE * seconds(long=15.0, short=4.0))
FOUND_OUT_SECONDS = 3.0
FAILED_SHARE = 0.001


@pytest.fixture(scope="module")
def pair(saved_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers with a model that is NumPy inside: it starts at once, and dies when told to."""
    directory = tmp_path_factory.mktemp("faults")
    published = shutil.copytree(saved_models / MODEL, directory / MODEL)
    (published / EXTRA).mkdir(exist_ok=True)
    tensors = {"inputs": {"x": ["FP32", [-1, 3]]}, "outputs": {"y": ["FP32", [-1, 3]]}}
    signature = {**tensors, "operation": "affine", "factor": 2, "offset": 1}
    (published / EXTRA / FILE).write_text(json.dumps({"signatures": {"serving_default": signature}}))
    settings = {"inference": {"INFERWAY_INFERENCE_RUNTIMES": '{"tensorflow": "fake"}'}}
    with Stack(directory / "stack", workers_count=2, settings=settings) as running:
        publish(running.registry.target, MODEL, published)
        for worker in running.workers:
            worker.wait_serving(VERSION)
        running.gateway.wait_serving(f"model/{MODEL}")
        yield running


@asynccontextmanager
async def calls(target: str, value: float = 1.0) -> AsyncIterator[Send]:
    """Calls with one row of `value`, which nothing on the way to the gateway repeats."""
    async with aio.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
        call, request = model_infer(channel), tiny_request(np.full((1, 3), value), MODEL)
        yield partial(call, request, timeout=CALL_SECONDS)


def check(scenario: str, stack: Stack, broken_at: Sequence[float], figures: Figures) -> None:
    """The gateway found out in time, and callers waited for that at most."""
    found_at = silences(stack)
    found_out = [min(found for found in found_at if found >= broken) - broken for broken in broken_at]
    figures.report(scenario, found_out_after=[f"{seconds:.2f} s" for seconds in found_out])
    assert figures.failures.total() <= FAILED_SHARE * figures.calls, figures.failures
    assert max(found_out) <= FOUND_OUT_SECONDS


def silences(stack: Stack) -> list[float]:
    """When the gateway noticed that a worker fell silent, in seconds since 1970."""
    entries = [json.loads(line) for line in stack.gateway.log.read_text().splitlines() if line.startswith("{")]
    times = [entry["time"] for entry in entries if entry["message"] == "a worker fell silent"]
    return [datetime.strptime(each, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() for each in times]


async def test_a_frozen_worker_is_found_out_within_seconds(pair: Stack) -> None:
    """TCP stays up and nothing answers. Once it runs again it is trusted again: then the other one may freeze."""
    frozen_at = []
    async with calls(pair.gateway.target) as send, steady(send, RATE) as figures:
        for victim in pair.workers:
            await figures.answers(RATE)
            frozen_at.append(time.time())
            victim.freeze()
            await figures.answers(CALLS_FOR_EACH)
            victim.thaw()
            await figures.answers(RATE)

    check("workers frozen in turn", pair, frozen_at, figures)


async def test_a_worker_behind_a_black_hole_is_found_out_within_seconds(pair: Stack) -> None:
    """Connections stay up and nothing passes, as when a firewall forgets them."""
    worker, before = pair.workers[0], pair.workers[0].environment
    async with FaultProxy(worker.target) as proxy:
        worker.terminate()
        await asyncio.to_thread(worker.wait)
        worker.environment = {**before, "INFERWAY_INFERENCE_ADVERTISED_ADDRESS": proxy.address}
        worker.start()
        await asyncio.to_thread(worker.wait_serving, VERSION)
        try:
            async with calls(pair.gateway.target) as send, steady(send, RATE) as figures:
                await figures.answers(int(1.2 * SLOW_START_SECONDS * RATE))  # before that it may get nothing
                assert proxy.connections
                held_at = time.time()
                proxy.hold()
                await figures.answers(CALLS_FOR_EACH)
                proxy.restore()
                await figures.answers(RATE)
        finally:
            worker.terminate()
            await asyncio.to_thread(worker.wait)
            worker.environment = before
            worker.start()
            await asyncio.to_thread(worker.wait_serving, VERSION)

    check("worker behind a black hole", pair, [held_at], figures)


async def test_a_poison_request_kills_two_runners_at_most_and_costs_nobody_else(pair: Stack) -> None:
    """Its caller repeats it again and again, and there are two workers to walk through."""
    async with (
        calls(pair.gateway.target) as good,
        calls(pair.gateway.target, DEADLY) as poison,
        steady(good, RATE) as figures,
    ):
        await figures.answers(RATE // 2)
        refusals = [await refusal(poison) for _ in range(rounds(long=50, short=5))]
        await figures.answers(RATE)
        for worker in pair.workers:
            await asyncio.to_thread(worker.wait_serving, VERSION)

    deaths = sum(worker.log.read_text().count("a runner ended") for worker in pair.workers)
    figures.report("poison request", its_caller_was_told=refusals, runner_deaths=deaths)
    assert figures.failures == {}
    assert 1 <= deaths <= 2
    assert set(refusals[1:]) == {"Quarantined"}


async def refusal(send: Send) -> str:
    """The name of the error that a call ends with."""
    with pytest.raises(aio.AioRpcError) as caught:
        await send()
    return type(decoded(caught.value)).__name__
