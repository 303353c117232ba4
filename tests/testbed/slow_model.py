"""A model whose rows take time and no processor, so that a few calls a second overload a worker and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping

from onnx import helper

from inferway.registry.v1 import resources_pb2
from inferway_inference.runtimes.fake import EXTRA, FILE
from tests.testbed import onnx_models
from tests.testbed.publishing import publish
from tests.testbed.stack import Stack

MODEL = "slow"
WIDTH = 4
MAX_BATCH_ROWS = 4
"""As a publisher would say whose rows take long one by one: a larger batch brings nothing and makes others wait."""
WORKER_SETTINGS: Mapping[str, str] = {"INFERWAY_INFERENCE_RUNTIMES": '{"onnx": "fake"}'}
"""Of workers that shall execute it."""


def serve_slow_model(stack: Stack, row_seconds: float, name: str = MODEL, width: int = WIDTH) -> None:
    """Publishes `x` [-1, width] → `y`, the same, and returns when the gateway serves it.

    Workers need WORKER_SETTINGS.
    """
    folder = stack.directory / "models" / name
    same = helper.make_node("Identity", ["x"], ["y"])
    shape = (onnx_models.ROWS, width)
    graph = onnx_models.model([same], [onnx_models.tensor("x", shape=shape)], [onnx_models.tensor("y", shape=shape)])
    onnx_models.save(graph, folder)
    tensors = ["FP32", [-1, width]]
    signature = {
        "inputs": {"x": tensors},
        "outputs": {"y": tensors},
        "operation": "identity",
        "row_seconds": row_seconds,
    }
    (folder / EXTRA).mkdir(exist_ok=True)
    (folder / EXTRA / FILE).write_text(json.dumps({"signatures": {"serving_default": signature}}))
    config = resources_pb2.VersionConfig(max_batch_rows=MAX_BATCH_ROWS)
    publish(stack.registry.target, name, folder, runtime=resources_pb2.RUNTIME_ONNX, config=config)
    for worker in stack.workers:
        worker.wait_serving(f"model/{name}@1")
    stack.gateway.wait_serving(f"model/{name}")
