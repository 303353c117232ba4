"""Asking models: predict, load."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Annotated, Any

import numpy as np
import typer

from inferway_cli.addresses import DEFAULT_GATEWAY, GatewayOption, TimeoutOption, parse_version
from inferway_cli.console import CommandError, JsonFlag, err, note, out, print_json, run
from inferway_cli.inputs import batches_of, read_inputs, synthesise
from inferway_cli.load import Load, Plan
from inferway_cli.load_view import summary_table, watch
from inferway_cli.signatures import fetch_signature
from inferway_cli.traces.context import sampled_traceparent
from inferway_client import Client, Prediction, RetryPolicy
from inferway_client.tensors import Array

SEED = 7
SYNTHETIC_BATCHES = 16
SHOWN_ELEMENTS = 20

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint, which is the model's name.")]
VersionOption = Annotated[str | None, typer.Option("--version", help="A version's number or alias.")]


def predict(
    name: NameArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=VALUE", help="JSON, @file.npy or @file.json; once for each input."),
    ] = None,
    version: VersionOption = None,
    stream: Annotated[bool, typer.Option("--stream", help="Send each row as an item of one stream.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Trace the call and print the trace's id.")] = False,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    timeout: TimeoutOption = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Ask a model. Without --input it gets one made-up row.

    Examples:
        inferway predict digits
        inferway predict digits --input image=@images.npy --json
        inferway predict digits --input image=@images.npy --stream --version champion
    """
    traceparent = sampled_traceparent() if trace else None

    async def act() -> list[Prediction]:
        signature = await fetch_signature(gateway, name, parse_version(version), timeout)
        given = read_inputs(inputs, signature) if inputs else synthesise(signature, 1, np.random.default_rng(SEED))
        async with Client(gateway, timeout=timeout) as client:
            if stream:
                return await _predict_rows(client, name, given, version, traceparent)
            return [
                await client.predict(name, given, version=parse_version(version), timing=True, traceparent=traceparent)
            ]

    for prediction in (predictions := run(act())):
        if not as_json:
            _print_prediction(prediction)
    if as_json:
        print_json([_as_dict(prediction) for prediction in predictions] if stream else _as_dict(predictions[0]))
    if traceparent:
        note(f"trace {traceparent.split('-')[1]}; `inferway trace {traceparent.split('-')[1]}` shows it")


def load(
    name: NameArgument,
    rate: Annotated[float, typer.Option(min=0.0, help="Requests a second; 0: as fast as answers come.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long; 0: until Ctrl-C.")] = 10.0,
    stream: Annotated[bool, typer.Option("--stream", help="One bidirectional stream instead of calls.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Rows in each request.")] = 1,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=VALUE", help="JSON or @file, as predict takes; its rows in turn."),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Callers, or items in flight.")] = 8,
    version: VersionOption = None,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    timeout: TimeoutOption = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Make traffic, and watch rate, latency and errors. Without --input the inputs are made up.

    With --rate requests start on schedule, and latency counts from then: a slow
    server cannot hide its queue.

    Examples:
        inferway load digits --seconds 30
        inferway load digits --rate 200 --stream
        inferway load digits --rate 100 --seconds 0 --input image=@images.npy
        inferway load digits -c 64 --json
    """

    async def act() -> Load:
        signature = await fetch_signature(gateway, name, parse_version(version), timeout)
        generator = np.random.default_rng(SEED)
        made_up = (synthesise(signature, rows, generator) for _ in range(SYNTHETIC_BATCHES))
        plan = Plan(
            endpoint=name,
            version=parse_version(version),
            inputs=batches_of(read_inputs(inputs, signature), rows) if inputs else list(made_up),
            rows=rows,
            rate=rate,
            seconds=seconds,
            concurrency=concurrency,
            streamed=stream,
            timeout_seconds=timeout,
        )
        return await _run_load(plan, gateway)

    finished = run(act())
    print_json(finished.summary()) if as_json else out.print(summary_table(finished))
    if not finished.tally.latencies.count:
        raise CommandError("nothing was answered")


async def _run_load(plan: Plan, gateway: str) -> Load:
    load = Load(plan, time.perf_counter)
    if threading.current_thread() is threading.main_thread():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, _stop_once, load, loop)
    async with Client(gateway, timeout=plan.timeout_seconds, retries=RetryPolicy(max_attempts=1)) as client:
        running = asyncio.create_task(load.run(client))
        try:
            await watch(load, running, err, time.perf_counter)
        finally:
            running.cancel()
        await running
    return load


def _stop_once(load: Load, loop: asyncio.AbstractEventLoop) -> None:
    """The first Ctrl-C ends the traffic and shows the summary; a second one ends the command."""
    load.stop()
    loop.remove_signal_handler(signal.SIGINT)


async def _predict_rows(
    client: Client, name: str, inputs: dict[str, Array], version: str | None, traceparent: str | None
) -> list[Prediction]:
    if not inputs or any(array.ndim == 0 for array in inputs.values()):
        raise CommandError("--stream sends rows, and the model's inputs have none; leave it out")
    count = min(len(array) for array in inputs.values())
    rows = ({key: array[index : index + 1] for key, array in inputs.items()} for index in range(count))
    opened = client.stream(name, version=parse_version(version), ordered=True, timing=True, traceparent=traceparent)
    async with opened as stream:
        return [result.unwrap() async for result in stream.map(rows)]


def _print_prediction(prediction: Prediction) -> None:
    out.print(f"{prediction.model_version}  {_timing(prediction)}", markup=False)
    for name, array in prediction.outputs.items():
        text = np.array2string(array, precision=4, suppress_small=True, threshold=SHOWN_ELEMENTS, max_line_width=76)
        out.print(f"{name} {array.dtype} {list(array.shape)}\n{text}", markup=False)


def _timing(prediction: Prediction) -> str:
    timing = prediction.timing
    if timing is None:
        return ""
    parts = {
        "queue": timing.gateway_queue_seconds,
        "wait": timing.worker_wait_seconds,
        "compute": timing.compute_seconds,
    }
    shown = [f"{name} {seconds * 1e3:.2f} ms" for name, seconds in parts.items()]
    return "  ".join([*shown, f"batch closed: {timing.dispatch_reason}"] if timing.dispatch_reason else shown)


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    timing = prediction.timing
    return {
        "model_version": prediction.model_version,
        "prediction_id": prediction.prediction_id,
        "outputs": {name: _as_lists(array) for name, array in prediction.outputs.items()},
        "timing": None if timing is None else {field: getattr(timing, field) for field in timing.__slots__},
    }


def _as_lists(array: Array) -> Any:
    if array.dtype == object:
        return np.vectorize(lambda text: text.decode(errors="replace"), otypes=[object])(array).tolist()
    return array.tolist()
