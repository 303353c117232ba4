"""ONNX and LiteRT models in the real stack, from the command's push to the client's answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inferway_client import Client
from tests.testbed.onnx_models import perceptron, save
from tests.testbed.stack import Stack

pytestmark = pytest.mark.tensorflow  # the stack's other models are TensorFlow's


@pytest.fixture(scope="session")
def weights(saved_models: Path) -> Mapping[str, NDArray[np.float32]]:
    """Of the perceptron that all runtimes have."""
    with np.load(saved_models / "tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def model_file(request: pytest.FixtureRequest, tmp_path: Path, saved_models: Path) -> Path:
    """The perceptron as a file of the runtime that the test names."""
    if request.param == "onnx":
        arrays = request.getfixturevalue("weights")
        return save(perceptron(arrays, softmax=False), tmp_path).rename(tmp_path / "perceptron.onnx")
    return saved_models / "litert" / "tiny" / "model.tflite"


def push(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As typed."""
    environment = {**os.environ, "INFERWAY_REGISTRY": stack.registry.target, "COLUMNS": "200"}
    command = [sys.executable, "-m", "inferway_cli", "push", *arguments, "--wait"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)


@pytest.mark.parametrize(
    ("model_file", "isolation", "title"),
    [
        ("onnx", "process", "ONNX model"),
        ("onnx", "inline", "ONNX model"),
        ("litert", "process", "LiteRT model"),
        ("litert", "inline", "LiteRT model"),
    ],
    indirect=["model_file"],
)
async def test_a_pushed_model_answers_what_numpy_computes(
    stack: Stack, model_file: Path, isolation: str, title: str, weights: Mapping[str, NDArray[np.float32]]
):
    """Nobody needs TensorFlow to serve, and no caller notices which runtime answers."""
    name = f"{model_file.suffix[1:]}-{isolation}"
    pushed = push(stack, name, str(model_file), "--isolation", isolation)
    assert (pushed.returncode, pushed.stdout) == (0, f"{name} version 1 is ready\n"), pushed.stderr
    assert f"as {title}" in pushed.stderr

    random = np.random.default_rng(1)
    async with Client(stack.gateway.target) as client:
        for rows in (1, 5, 300):
            x = random.normal(size=(rows, 32)).astype("f4")
            answer = await client.predict(name, {"x": x}, timeout=30)
            expected = np.maximum(x @ weights["w0"] + weights["b0"], 0) @ weights["w1"] + weights["b1"]
            assert np.allclose(answer.outputs["y"], expected, atol=1e-5)


def test_a_renamed_file_is_refused_at_the_push(stack: Stack, saved_models: Path, tmp_path: Path):
    """The publisher is told at once; no worker ever sees it."""
    renamed = tmp_path / "model.onnx"
    renamed.write_bytes((saved_models / "litert" / "tiny" / "model.tflite").read_bytes())
    refused = push(stack, "renamed", str(renamed))

    assert refused.returncode == 1
    assert "model.onnx: it" in refused.stderr
