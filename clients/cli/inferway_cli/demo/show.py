"""Shows the demo model at work, and what to type next."""

from __future__ import annotations

import json
from pathlib import Path

from inferway_cli.demo.ask import (
    CONCURRENCY,
    Answers,
    ask_by_calls,
    ask_by_stream,
    ask_traced,
    read_held_out,
    until_routed,
)
from inferway_cli.demo.publish import MODEL, held_out
from inferway_cli.progress import Steps
from inferway_cli.stack.ports import Ports, address
from inferway_cli.traces.receiver import TraceReceiver
from inferway_cli.traces.show import trace_lines
from inferway_client import Client
from inferway_client.tensors import Array

REQUEST_FILE = "request.json"
PREDICT = "inferway.prediction.v1.PredictionService/Predict"


async def show(directory: Path, ports: Ports, receiver: TraceReceiver, steps: Steps) -> None:
    """Sends the held-out images and prints what came of it. Raises the errors of predictions."""
    images, labels = read_held_out(held_out(directory))
    async with Client(address(ports.grpc)) as client:
        await until_routed(client, images[0])
        calls = await ask_by_calls(client, images)
        stream = await ask_by_stream(client, images)
        trace_id, hops = await ask_traced(client, images[0], receiver)
    steps.say(f"\n{MODEL}: {len(images)} held-out images through the gateway")
    steps.say(f"  accuracy {calls.accuracy(labels):.3f} by calls, {stream.accuracy(labels):.3f} by stream")
    steps.say(f"  {_figures(f'calls, {CONCURRENCY} at once', calls)}")
    steps.say(f"  {_figures('one stream', stream)}")
    steps.say(f"\none request, hop by hop (trace {trace_id})")
    for line in trace_lines(hops):
        steps.say(line)
    _write_request(directory / REQUEST_FILE, images[0])


def say_what_next(directory: Path | None, ports: Ports, steps: Steps) -> None:
    """Prints lines to copy; those of the demo only if `directory` holds it."""
    gateway = address(ports.grpc)
    steps.say("\ntry, in another terminal")
    if directory is not None:
        steps.say(f"  inferway predict {MODEL}{_option('--gateway', gateway, 8001)}")
        steps.say(f"  inferway load {MODEL} --seconds 30{_option('--gateway', gateway, 8001)}")
    steps.say(
        f"  inferway status{_option('--gateway', gateway, 8001)}{_option('--registry', address(ports.registry), 8010)}"
    )
    steps.say(f"  grpcurl -plaintext {gateway} list")
    if directory is not None:
        steps.say(f"  grpcurl -plaintext -d @ {gateway} \\\n    {PREDICT} \\\n    < '{directory / REQUEST_FILE}'")
    steps.say(f"  curl http://{address(ports.metrics)}/metrics")
    if directory is not None:
        steps.say(_python(gateway))


def _figures(title: str, answers: Answers) -> str:
    percentiles = "  ".join(f"p{p} {answers.latencies.percentile(p) * 1e3:.1f} ms" for p in (50, 95, 99))
    return f"{title:<18}{percentiles}  {answers.per_second:,.0f} images/s"


def _option(name: str, target: str, default_port: int) -> str:
    return "" if target == address(default_port) else f" {name} {target}"


def _python(gateway: str) -> str:
    return f"""\nor, in Python
  import asyncio, numpy as np
  from inferway_client import Client

  async def main():
      async with Client("{gateway}") as client:
          image = np.zeros((1, 64), np.float32)
          prediction = await client.predict("{MODEL}", {{"image": image}})
          print(prediction.outputs["probabilities"])

  asyncio.run(main())"""


def _write_request(path: Path, image: Array) -> None:
    """A Predict request in JSON, as grpcurl reads it."""
    tensor = {
        "name": "image",
        "datatype": "DATA_TYPE_FP32",
        "shape": [1, len(image)],
        "floats": {"values": [round(float(value), 4) for value in image]},
    }
    path.write_text(json.dumps({"target": {"endpoint": MODEL}, "inputs": [tensor], "timing_requested": True}) + "\n")
