"""Traffic with cancelled calls against a gateway of each transport, and what the processes hold on to.

    python -m tests.soak.gateway MINUTES [RATE [CANCELLED]]        exit status 1 if anything grows

A bare grpc.aio echo server gets the same calls in the same run: what it leaks, grpc leaks.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from grpc import aio

from inferway.prediction.v1 import prediction_service_pb2 as pb
from inferway.prediction.v1.prediction_service_pb2_grpc import PredictionServiceStub
from inferway.registry.v1 import resources_pb2
from inferway_client.tensors import encode_all
from tests.testbed.ports import free_ports
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

RATE = 60.0
"""Calls a second on each server."""
CANCELLED = 0.3
"""Share of the calls and of the streams that their callers cancel at a random moment."""
CANCELLED_WITHIN_SECONDS = 0.01
"""About as long as a call takes: some are cancelled before the server has read them, some when they are answered."""
STREAMS = 0.1
"""Of the calls: streams of STREAM_ITEMS items."""
STREAM_ITEMS = 5
ROWS = 128
"""16 KiB: whoever keeps requests is seen soon."""
SAMPLES = 60
SETTLING = 0.25
"""Of the run: caches and pools fill, so it does not count."""
MAX_SLOPE_MIB = 1.0
"""Mebibytes a minute."""
CALL_SECONDS = 5.0

Begun = tuple[Any, Coroutine[Any, Any, None]]
"""A call, and its way to the end."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at one moment."""

    at: float
    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Sample:
        """Now."""
        with process.oneshot():
            return cls(time.monotonic(), process.memory_info().rss, process.num_fds(), process.num_threads())


@dataclass(slots=True)
class Watched:
    """One server under load."""

    name: str
    process: psutil.Process
    call: Callable[[], Begun]
    stream: Callable[[], Begun]
    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def slope_mib(self) -> float:
        """Mebibytes a minute after settling: the median over all pairs of samples, which no single jump moves."""
        pairs = itertools.combinations(self.samples[int(len(self.samples) * SETTLING) :], 2)
        slopes = [(b.resident_bytes - a.resident_bytes) / (b.at - a.at) for a, b in pairs]
        return float(np.median(slopes)) * 60 / 2**20

    def grown(self, of: str) -> int:
        """How much more there mostly is in the last quarter than there ever was while settling: a field of Sample."""
        values, quarter = [getattr(sample, of) for sample in self.samples], int(len(self.samples) * SETTLING)
        return int(np.median(values[-quarter:]) - max(values[:quarter]))

    def __str__(self) -> str:
        """All figures in one line."""
        first, last = self.samples[0].resident_bytes, self.samples[-1].resident_bytes
        return (
            f"{self.name}: {dict(self.outcomes)}, memory {first >> 20} to {last >> 20} MiB, {self.slope_mib:+.2f} MiB "
            f"a minute after settling, descriptors {self.grown('descriptors'):+d}, threads {self.grown('threads'):+d}"
        )


async def soak(watched: Sequence[Watched], seconds: float, rate: float, cancelled: float = CANCELLED) -> None:
    """Keeps all servers under the same load for so long, and takes samples of them."""
    load = [asyncio.create_task(_load(server, rate, cancelled)) for server in watched]
    for _ in range(SAMPLES):
        await asyncio.sleep(seconds / SAMPLES)
        for server in watched:
            server.samples.append(Sample.of(server.process))
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)


async def _load(server: Watched, rate: float, cancelled: float) -> None:
    chance, under_way = random.Random(server.name), set[asyncio.Task[None]]()
    while True:
        begin = server.stream if chance.random() < STREAMS else server.call
        cancel_after = chance.random() * CANCELLED_WITHIN_SECONDS if chance.random() < cancelled else CALL_SECONDS
        task = asyncio.create_task(_one(server, begin(), cancel_after))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(1 / rate)


async def _one(server: Watched, begun: Begun, cancel_after: float) -> None:
    call, ending = begun
    timer = asyncio.get_running_loop().call_later(cancel_after, call.cancel)
    try:
        await ending
        server.outcomes["answered"] += 1
    except aio.AioRpcError as error:  # of a call that was cancelled just as it got its headers, too
        was_cancelled = error.code() is grpc.StatusCode.CANCELLED and asyncio.get_running_loop().time() >= timer.when()
        server.outcomes["cancelled" if was_cancelled else error.code().name] += 1
    except (asyncio.CancelledError, asyncio.InvalidStateError):  # the latter from a write to a cancelled call
        server.outcomes["cancelled"] += 1
    finally:
        timer.cancel()


def _unary(call: Any) -> Begun:
    async def ending() -> None:
        await call

    return call, ending()


def _streamed(call: Any, messages: Sequence[Any]) -> Begun:
    async def ending() -> None:
        for message in messages:
            await call.write(message)
        await call.done_writing()
        while await call.read() is not aio.EOF:
            pass

    return call, ending()


@asynccontextmanager
async def servers(model: Path, directory: Path) -> AsyncIterator[list[Watched]]:
    """A gateway of each transport before one worker that serves the LiteRT `model`, and the echo."""
    with Stack(directory) as stack:
        native = stack.another_gateway("native-gateway", TRANSPORT="native")
        native.start()
        echo_target = f"127.0.0.1:{free_ports(1)[0]}"
        echo = _start_echo(echo_target)
        try:
            config = resources_pb2.VersionConfig(isolation=resources_pb2.ISOLATION_INLINE)
            publish(stack.registry.target, "tiny", model, config=config, runtime=resources_pb2.RUNTIME_LITERT)
            for gateway in (stack.gateway, native):
                gateway.wait_serving("model/tiny")
            async with AsyncExitStack() as channels:
                watched = []
                for name, gateway in (("grpcio gateway", stack.gateway), ("native gateway", native)):
                    channel = await channels.enter_async_context(aio.insecure_channel(gateway.target))
                    watched.append(_gateway(name, gateway.pid, channel))
                channel = await channels.enter_async_context(aio.insecure_channel(echo_target))
                await channel.channel_ready()
                yield [*watched, _echo(echo.pid, channel)]
        finally:
            native.end()
            echo.kill()
            echo.wait()


def _start_echo(target: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.echo_server", target])


def _gateway(name: str, pid: int, channel: aio.Channel) -> Watched:
    stub, inputs = PredictionServiceStub(channel), encode_all({"x": np.ones((ROWS, 32), np.float32)})
    request = pb.PredictRequest(inputs=inputs)
    opening = pb.StreamPredictRequest()
    request.target.endpoint = opening.open.target.endpoint = "tiny"
    items = [pb.StreamPredictRequest(item=pb.StreamItem(id=n, inputs=inputs)) for n in range(STREAM_ITEMS)]
    return Watched(
        name,
        psutil.Process(pid),
        lambda: _unary(stub.Predict(request, timeout=CALL_SECONDS)),
        lambda: _streamed(stub.StreamPredict(timeout=CALL_SECONDS), [opening, *items]),
    )


def _echo(pid: int, channel: aio.Channel) -> Watched:
    payload = bytes(ROWS * 32 * 4)
    call: Any = channel.unary_unary("/echo.Echo/Unary")
    stream: Any = channel.stream_stream("/echo.Echo/Stream")
    return Watched(
        "bare grpc.aio echo",
        psutil.Process(pid),
        lambda: _unary(call(payload, timeout=CALL_SECONDS)),
        lambda: _streamed(stream(timeout=CALL_SECONDS), [payload] * (1 + STREAM_ITEMS)),
    )


def leaks_handles(server: Watched) -> bool:
    """Whether there are more descriptors or threads than before."""
    return server.grown("descriptors") > 0 or server.grown("threads") > 0


async def _soaked(folder: Path, seconds: float, rate: float, cancelled: float) -> list[Watched]:
    async with servers(folder / "models" / "litert" / "tiny", folder / "stack") as watched:
        await soak(watched, seconds, rate, cancelled)
    return watched


def main(minutes: float, rate: float = RATE, cancelled: float = CANCELLED) -> int:
    """Soaks, prints, and returns the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        make_models = [sys.executable, "-m", "tests.testbed.savedmodels", f"{scratch}/models"]
        subprocess.run(make_models, check=True, stderr=subprocess.DEVNULL)
        *gateways, echo = asyncio.run(_soaked(Path(scratch), minutes * 60, rate, cancelled))
    print(*gateways, echo, sep="\n")
    grown = [server.name for server in gateways if server.slope_mib > MAX_SLOPE_MIB or leaks_handles(server)]
    print(f"soak: {', '.join(grown)} grew" if grown else "soak: nothing grew")
    return 1 if grown else 0


if __name__ == "__main__":
    raise SystemExit(main(*map(float, sys.argv[1:])))
