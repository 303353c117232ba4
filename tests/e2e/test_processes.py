"""A gateway of several processes: one port, one view of their metrics, and nobody left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.type.v1 import tensor_pb2
from tests.testbed.calls import model_infer, tiny_request
from tests.testbed.ports import free_ports
from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

ROWS = np.ones((1, 32), np.float32)
ITEM = pb.StreamItem(
    id=7,
    inputs=[tensor_pb2.Tensor(name="x", datatype=tensor_pb2.DATA_TYPE_FP32, shape=[1, 32], raw=ROWS.tobytes())],
)


class Gateways:
    """A gateway of two processes, and its metrics."""

    def __init__(self, stack: Stack, transport: str, name: str = "two") -> None:
        self.metrics = f"127.0.0.1:{free_ports(1)[0]}"
        self.process: ServiceProcess = stack.another_gateway(
            f"{name}-{transport}", PROCESSES="2", TRANSPORT=transport, METRICS_ADDRESS=self.metrics
        )

    def answered(self) -> Counter[str]:
        """Requests answered, by process."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as response:
            text = response.read().decode()
        counts = Counter[str]()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "inferway_gateway_requests_total" and sample.labels["code"] == "OK":
                    counts[sample.labels["process"]] += int(sample.value)
        return counts

    async def call(self, *, wait_for_ready: bool = True) -> str:
        """One call on a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.process.target, options=options) as channel:
            response = await model_infer(channel)(tiny_request(ROWS), timeout=10, wait_for_ready=wait_for_ready)
            return str(response.model_version)

    async def both_answer(self) -> None:
        """Calls until each process has answered something more."""
        before = self.answered()
        async with asyncio.timeout(30):
            while len(self.answered() - before) < 2:
                await asyncio.gather(*(self.call() for _ in range(8)))


@pytest.fixture(scope="module", params=["grpcio", "native"])
def two(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Gateways]:
    """Not shared with other modules: its processes are killed."""
    gateways = Gateways(stack, request.param)
    gateways.process.start()
    gateways.process.wait_serving("model/tiny")
    yield gateways
    gateways.process.end()


async def test_every_process_answers_on_the_one_port(two: Gateways) -> None:
    """The kernel spreads connections; whoever scrapes sees every process."""
    await two.both_answer()
    before = two.answered()
    versions = await asyncio.gather(*(two.call() for _ in range(40)))

    assert set(versions) == {"1"}
    assert sum((two.answered() - before).values()) == 40


async def test_a_process_that_dies_is_started_again(two: Gateways) -> None:
    """The others go on meanwhile, and nobody has to notice."""
    victim, other = two.process.children()
    os.kill(victim.pid, signal.SIGKILL)
    await asyncio.to_thread(psutil.wait_procs, [victim], timeout=10)
    async with asyncio.timeout(30):
        while len(two.process.children()) < 2:
            assert await two.call() == "1"

    assert other.is_running()
    await two.both_answer()


async def test_another_gateway_is_told_that_the_port_is_taken(two: Gateways, stack: Stack) -> None:
    """Sharing is among the processes of one gateway, unless both sides ask for it."""
    second = stack.another_gateway("second", PROCESSES="2")
    second.environment = {**second.environment, "INFERWAY_GATEWAY_GRPC_ADDRESS": two.process.target}
    second.start()

    assert await asyncio.to_thread(second.wait) == 1
    assert "is taken by another process" in second.tail()


@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_a_stream_has_its_grace_when_the_gateway_leaves(stack: Stack, transport: str) -> None:
    """A rolling update must not cut what is under way: it is told, and goes on for a while."""
    gateways = Gateways(stack, transport, name="leaving")
    gateways.process.start()
    gateways.process.wait_serving("model/tiny")
    async with grpc.aio.insecure_channel(gateways.process.target) as channel:
        stream = PredictionServiceStub(channel).StreamPredict(timeout=30)
        await stream.write(pb.StreamPredictRequest(open=pb.StreamOpen(target=pb.Target(endpoint="tiny"))))
        await read(stream, "opened")
        gateways.process.terminate()
        await read(stream, "drain")
        refused = await closed(gateways)
        await stream.write(pb.StreamPredictRequest(item=ITEM))
        answer = await read(stream, "result")
        await stream.done_writing()

    assert refused
    assert answer.result.id == ITEM.id
    assert answer.result.WhichOneof("outcome") == "prediction"
    assert await asyncio.to_thread(gateways.process.wait) == 0


async def read(stream: Any, kind: str) -> pb.StreamPredictResponse:
    """The next message of that kind."""
    while isinstance(message := await stream.read(), pb.StreamPredictResponse):
        if message.WhichOneof("message") == kind:
            return message
    raise AssertionError(f"the stream ended before {kind}")


async def closed(gateways: Gateways) -> bool:
    """True when both processes take no new call any more: draining is over, and what runs has its grace."""
    async with asyncio.timeout(10):
        while True:
            try:
                await gateways.call(wait_for_ready=False)
            except grpc.aio.AioRpcError:
                return True


def test_nobody_outlives_a_gateway_that_was_killed(stack: Stack) -> None:
    """An orphan would answer for a gateway that is thought to be gone."""
    gateways = Gateways(stack, "grpcio")
    gateways.process.start()
    gateways.process.wait_serving("model/tiny")
    members = gateways.process.children()
    gateways.process.kill()
    gone, alive = psutil.wait_procs(members, timeout=20)

    assert len(gone) == 2
    assert not alive
