"""Makes the demo model if the registry is empty, and publishes it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from inferway.registry.v1 import resources_pb2
from inferway_cli.console import CommandError
from inferway_cli.local_model import read_model
from inferway_cli.progress import Steps
from inferway_cli.readiness import until_ready
from inferway_cli.registry import Registry
from inferway_cli.uploads import push

MODEL = "digits"
ALIAS = "champion"
TRAIN_SECONDS = 300.0
READY_SECONDS = 120.0


async def ensure_published(registry: Registry, directory: Path, steps: Steps) -> bool:
    """Returns whether the demo model is there and ready; makes it if there is no model at all.

    Raises CommandError if training or loading fails.
    """
    models = await registry.models()
    if not models:
        accuracy = await _train(directory, steps)
        with steps.step("publish") as step:
            version = await _publish(registry, directory, accuracy)
            step.detail = version.name
    elif not any(model.name == f"models/{MODEL}" for model in models) or not held_out(directory).exists():
        return False
    name = await _served_version(registry)
    if name is None:
        return False
    with steps.step("load and warm up") as step:
        await until_ready(registry, name, READY_SECONDS, step.tell)
        step.detail = name
    return True


def held_out(directory: Path) -> Path:
    """The images that were not trained on."""
    return directory / "held_out.npz"


async def _served_version(registry: Registry) -> str | None:
    """The version that answers or is about to; None if there is none, or if it is unloaded."""
    endpoint = await registry.endpoint(MODEL)
    busiest = max(endpoint.arms, key=lambda arm: arm.weight_basis_points, default=resources_pb2.Arm())
    name = endpoint.next_version or busiest.version
    if not name or (await registry.version(name)).state != resources_pb2.ModelVersion.STATE_PUBLISHED:
        return None
    return name


async def _publish(registry: Registry, directory: Path, accuracy: float) -> resources_pb2.ModelVersion:
    config = resources_pb2.VersionConfig(
        description="Handwritten digits, 8x8 pixels from 0 to 1, row by row",
        labels={"accuracy": f"{accuracy:.4f}", "dataset": "scikit-learn digits"},
        forbid_nan_inputs=["image"],
    )
    local = await asyncio.to_thread(read_model, directory / "model")
    return await push(registry, MODEL, local, config, ALIAS, lambda _: None)


async def _train(directory: Path, steps: Steps) -> float:
    _empty(directory)
    with steps.step("train on digits") as step:
        step.tell("starting TensorFlow")
        result = await _run_training(directory, lambda line: step.tell(_epoch(line)))
        step.detail = f"accuracy {result['accuracy']:.3f} on {result['held_out']} held out"
    return float(result["accuracy"])


async def _run_training(directory: Path, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Runs the training to its end and returns its last line; the process ends with this one."""
    log = directory / "train.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "inferway_cli.stack.tether", str(os.getpid())),
            *("inferway_cli.demo.train", str(directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(TRAIN_SECONDS):
            return await _follow(process, log, tell)
    except TimeoutError:
        raise CommandError(f"training took longer than {TRAIN_SECONDS:g} s; log {log}") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _follow(
    process: asyncio.subprocess.Process, log: Path, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    assert process.stdout is not None
    async for text in process.stdout:
        line = json.loads(text)
        if "accuracy" in line:
            return dict(line)
        tell(line)
    raise CommandError(f"training failed: {_last_line(log)} (log {log})")


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _epoch(line: dict[str, Any]) -> str:
    return f"epoch {line['epoch']} of {line['epochs']}, accuracy {line['accuracy_in_training']:.3f}"
