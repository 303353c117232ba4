"""`inferway up`: a whole inferway on this machine, with a demo model."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from inferway.errors import InferwayError
from inferway_cli.console import CommandError, explain, out, report
from inferway_cli.data_directory import DataDirectory, DataDirOption
from inferway_cli.demo.publish import ensure_published
from inferway_cli.demo.show import say_what_next, show
from inferway_cli.progress import Steps
from inferway_cli.registry import Registry
from inferway_cli.stack.plan import plan_stack
from inferway_cli.stack.ports import MAX_WORKERS, Ports, address, check_free, check_usable
from inferway_cli.stack.supervisor import Supervisor
from inferway_cli.traces.receiver import TraceReceiver
from inferway_cli.traces.store import TraceStore

DEFAULTS = Ports()


def up(
    data_dir: DataDirOption = None,
    workers: Annotated[int, typer.Option(min=1, max=MAX_WORKERS, help="Inference workers.")] = 1,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Train and show a model if there is none.")] = True,
    port_offset: Annotated[int, typer.Option(min=0, help="Move every port up by this much.")] = 0,
    grpc_port: Annotated[int, typer.Option(help="The gateway's gRPC.")] = DEFAULTS.grpc,
    http_port: Annotated[int, typer.Option(help="The gateway's HTTP.")] = DEFAULTS.http,
    metrics_port: Annotated[int, typer.Option(help="The gateway's metrics.")] = DEFAULTS.metrics,
    registry_port: Annotated[int, typer.Option(help="The registry.")] = DEFAULTS.registry,
    registry_metrics_port: Annotated[int, typer.Option(help="Its metrics.")] = DEFAULTS.registry_metrics,
    worker_port: Annotated[int, typer.Option(help="The first worker; the next ones follow.")] = DEFAULTS.worker,
    worker_metrics_port: Annotated[int, typer.Option(help="Their metrics.")] = DEFAULTS.worker_metrics,
    otlp_port: Annotated[int, typer.Option(help="Where traces are received; any other if taken.")] = DEFAULTS.otlp,
) -> None:
    """Start registry, workers and gateway, show a model at work, and stay until Ctrl-C.

    Everything listens on 127.0.0.1 and is kept in one directory. A process that
    dies is started again.

    Examples:
        inferway up
        inferway up --workers 2 --data-dir ./data
        inferway up --no-demo --port-offset 100
    """
    ports = Ports(
        grpc_port,
        http_port,
        metrics_port,
        registry_port,
        registry_metrics_port,
        worker_port,
        worker_metrics_port,
        otlp_port,
    ).shifted(port_offset)
    check_usable(ports.claims(workers))
    data = DataDirectory.choose(data_dir)
    check_free(ports.claims(workers), port_offset)
    with data.locked():
        asyncio.run(_until_stopped(_run(ports, workers, data, demo)))


async def _until_stopped(running: Coroutine[Any, Any, None]) -> None:
    """Ends `running` in order at the first SIGINT or SIGTERM; a second one ends everything at once."""
    task = asyncio.ensure_future(running)
    stopped = False

    def stop(number: signal.Signals) -> None:
        nonlocal stopped
        if stopped:
            os._exit(128 + number)  # the children are tethered and go, too
        stopped = True
        out.print("\nstopping: draining gateway, workers, registry (again to kill)")
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    with suppress(asyncio.CancelledError):
        await task
    if stopped:
        out.print("stopped")


async def _run(ports: Ports, workers: int, data: DataDirectory, demo: bool) -> None:
    steps = Steps(out)
    steps.say(f"inferway up, data in {data.root}")
    with TraceStore(data.traces) as store:
        async with TraceReceiver(store, ports.otlp) as receiver:
            plans = plan_stack(ports, workers, data, receiver.target)
            async with Supervisor(plans, data.logs, steps.say) as supervisor:
                await supervisor.start(steps)
                shown = demo and await _demonstrate(ports, data.demo, receiver, steps)
                say_what_next(data.demo if shown else None, ports, steps)
                steps.say(f"\nserving on {address(ports.grpc)}; Ctrl-C stops")
                await asyncio.Event().wait()


async def _demonstrate(ports: Ports, directory: Path, receiver: TraceReceiver, steps: Steps) -> bool:
    """Shows the demo; what is wrong with it is told, and does not stop the stack."""
    try:
        async with Registry(address(ports.registry)) as registry:
            if not await ensure_published(registry, directory, steps):
                return False
        await show(directory, ports, receiver, steps)
    except InferwayError as error:
        report(f"the demo failed: {explain(error)}")
        return False
    except CommandError as error:
        report(f"the demo failed: {error}")
        return False
    return True
