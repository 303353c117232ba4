"""Runtimes: what executes a version. Each is imported in the runner that needs it and nowhere else."""

from __future__ import annotations

import importlib

from inferway.errors import NotSupported
from inferway_inference.runtimes.base import Runtime

NAMES = ("tensorflow", "onnx", "litert", "fake")


def open_runtime(name: str) -> Runtime:
    """A new, empty runtime; raises NotSupported if this worker has none of that name."""
    if name not in NAMES:
        raise NotSupported(f"this worker has no runtime {name!r}; it has {', '.join(NAMES)}", feature=name)
    module = importlib.import_module(f"{__name__}.{name}")
    runtime: Runtime = module.open_runtime()
    return runtime
