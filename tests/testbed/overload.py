"""What overload is, as scenarios over sockets with their figures: short ones are tests, long ones `make overload`.

The model takes time and no processor (`tests.testbed.slow_model`), so that what is overloaded is the worker, and not
the gateway or the generator of the load, which share the processors.
"""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from grpc import aio
from prometheus_client.parser import text_string_to_metric_families

from inferway_client import Client
from tests.testbed.load import steady
from tests.testbed.open_loop import Record, Source, open_loop, peak, percentile
from tests.testbed.processes import ServiceProcess
from tests.testbed.slow_model import MODEL, WIDTH
from tests.testbed.stack import Stack

ROW_SECONDS = 0.02
"""One worker computes some hundred rows a second."""
DEADLINE_SECONDS = 1.0
PEAK_CALLERS, PEAK_SECONDS = 32, 2.0
CALM = 0.8
"""Of the peak: a usual load."""
CALM_SECONDS = 5.0
IDLE_RATE = 50
"""Calls a second that ask for nothing."""
AWAY_RATE = 150.0
"""Calls a second while no worker is there."""


async def capacity(stack: Stack) -> float:
    """Answers a second when callers wait for theirs: the peak."""
    return await peak(stack.gateway.target, PEAK_CALLERS, PEAK_SECONDS)


@dataclass(frozen=True, slots=True)
class Flood:
    """Five times what the worker can do, and then a usual load."""

    peak: float
    record: Record
    after: Record
    gateway_cpu: float
    """Processors that the gateway used, 1.0 being one."""
    idle_p95: float
    """Seconds of calls at the same time that ask for nothing: what the machine made of any call."""

    def lines(self) -> list[str]:
        """The figures."""
        return [
            self.record.line("5 x capacity"),
            f"  goodput is {self.record.goodput / self.peak:.2f} of the peak of {self.peak:.1f}/s",
            f"  the gateway used {self.gateway_cpu:.0%} of a processor",
            f"  p95 of calls at the same time that ask for nothing {self.idle_p95 * 1e3:.1f} ms",
            f"  pushback on every refusal: {all_pushed_back(self.record)}",
            self.after.line(f"  {CALM} x afterwards"),
            f"  normal {self.after.normal_after():.1f} s after the flood",
        ]


async def flood(stack: Stack, peak_rate: float, seconds: float) -> Flood:
    """See Flood."""
    target, gateway = stack.gateway.target, psutil.Process(stack.gateway.pid)
    before = sum(gateway.cpu_times()[:2])
    idle = asyncio.create_task(idle_calls(target, seconds))
    record = await open_loop(target, [Source("flood", 5 * peak_rate, DEADLINE_SECONDS)], seconds)
    used = sum(gateway.cpu_times()[:2]) - before
    after = await open_loop(target, [Source("calm", CALM * peak_rate, DEADLINE_SECONDS)], CALM_SECONDS)
    return Flood(peak_rate, record, after, used / seconds, percentile(await idle, 0.95))


async def idle_calls(target: str, seconds: float) -> list[float]:
    """Seconds that each of some calls took that ask the gateway whether it lives, from when it was due."""
    loop = asyncio.get_running_loop()
    async with aio.insecure_channel(target) as channel:
        live: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")

        async def call(due: float) -> float:
            await asyncio.sleep(due - loop.time())
            await live(b"", timeout=10.0)
            return loop.time() - due

        began = loop.time()
        return await asyncio.gather(*(call(began + n / IDLE_RATE) for n in range(int(seconds * IDLE_RATE))))


def all_pushed_back(record: Record) -> bool:
    """Every refusal said when to come back, as RetryInfo and in grpc's own header."""
    return all(call.has_pushback for call in record.refused)


async def two_classes(stack: Stack, peak_rate: float, seconds: float) -> Record:
    """1.8 times capacity, half of it `critical`, half `sheddable`."""
    classes = ("critical", "sheddable")
    sources = [Source(name, 0.9 * peak_rate, DEADLINE_SECONDS, criticality=name) for name in classes]
    return await open_loop(stack.gateway.target, sources, seconds)


async def two_tenants(stack: Stack, peak_rate: float, seconds: float) -> Record:
    """`greedy` asks for five times the capacity, ten times its share; `modest` for less than its share."""
    sources = [
        Source(name, rate * peak_rate, DEADLINE_SECONDS, tenant=name) for name, rate in (("greedy", 5), ("modest", 0.4))
    ]
    return await open_loop(stack.gateway.target, sources, seconds)


@dataclass(frozen=True, slots=True)
class Absence:
    """All workers were away for a while."""

    calls: int
    """Of the program that uses our client."""
    attempts: int
    """That the gateway saw, and that it made beyond the first of each."""
    seconds: float
    seconds_to_recover: float
    """From the moment when the gateway said that it serves again to the last failure of a call after it."""

    @property
    def permitted(self) -> float:
        """A fifth more than calls, and three a second."""
        return 1.2 * self.calls + 3 * self.seconds

    def line(self) -> str:
        """The figures."""
        return (
            f"no worker for {self.seconds:.0f} s: {self.calls} calls became {self.attempts} attempts, of "
            f"{self.permitted:.0f} permitted; normal {self.seconds_to_recover:.1f} s after the worker's return"
        )


async def workers_away(stack: Stack, seconds: float) -> Absence:
    """Kills every worker, and starts them again after so long, while a program calls at a steady rate."""
    loop, inputs = asyncio.get_running_loop(), {"x": np.ones((1, WIDTH), np.float32)}
    last_failure = 0.0
    async with Client(stack.gateway.target, timeout=DEADLINE_SECONDS) as client:

        async def call() -> None:
            nonlocal last_failure
            try:
                await client.predict(MODEL, inputs)
            except Exception:
                last_failure = loop.time()
                raise

        await call()
        before = _attempts(stack)
        for worker in stack.workers:
            await asyncio.to_thread(worker.kill)
        async with steady(call, AWAY_RATE) as figures:
            await asyncio.sleep(seconds)
        absent = Absence(figures.calls, _attempts(stack) - before, seconds, 0.0)
        async with steady(call, AWAY_RATE / 3):
            await _return(stack)
            back_at = loop.time()
            await asyncio.sleep(CALM_SECONDS)
    return Absence(absent.calls, absent.attempts, seconds, max(0.0, last_failure - back_at))


async def _return(stack: Stack) -> None:
    for worker in stack.workers:
        worker.start()
    await asyncio.to_thread(stack.gateway.wait_serving, f"model/{MODEL}")


def _attempts(stack: Stack) -> int:
    samples = metrics(stack.gateway_metrics)
    calls = sum(value for (name, method), value in samples.items() if method == "Predict" and "rpc_requests" in name)
    return int(calls + sum(value for (name, _), value in samples.items() if name == "inferway_gateway_retries_total"))


def metrics(address: str) -> dict[tuple[str, str], float]:
    """Sums of a process's counters by name and rpc method."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        text = response.read().decode()
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, sample.labels.get("method", "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


async def replaced_under_load(gateways: list[ServiceProcess], rounds: int, rate: float) -> dict[str, int]:
    """Restarts each gateway in turn while our client calls at a steady rate; returns its failures by reason."""
    inputs = {"x": np.ones((1, WIDTH), np.float32)}
    target = ",".join(gateway.target for gateway in gateways)
    async with Client(target) as client, steady(lambda: client.predict(MODEL, inputs), rate) as figures:
        for gateway in gateways * rounds:
            await figures.answers(int(rate))  # as an orchestrator waits until the last one is in use
            gateway.terminate()
            await asyncio.to_thread(gateway.wait)
            gateway.start()
            await asyncio.to_thread(gateway.wait_serving, f"model/{MODEL}")
    return dict(figures.failures)
