"""The model that the vehicles ask: the arrival model of `examples/eta`, trained once and kept, published at will."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from examples.eta import numpy_model
from examples.fleet.vehicle import ENDPOINT

ROOT = Path(__file__).parents[2]


class CommandFailed(Exception):
    """A command that the example ran did not do its work; the message is what it said last."""


class ArrivalModel:
    """A directory as `python -m examples.eta.train` writes it."""

    def __init__(self, directory: Path) -> None:
        """It need not exist yet; see `train`."""
        self._directory = directory

    @property
    def trained(self) -> bool:
        """Whether it is there, and whole."""
        return (self._directory / "weights.npz").exists()

    @property
    def weights(self) -> numpy_model.Weights:
        """For NumPy, to compute what the servers must answer."""
        return numpy_model.load(self._directory / "weights.npz")

    async def train(self) -> None:
        """Takes half a minute. Raises CommandFailed; what was not finished is not kept."""
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._directory.parent) as unfinished:
            directory = Path(unfinished) / "eta"
            await run_module("examples.eta.train", str(directory))
            directory.rename(self._directory)

    async def publish(self, registry: str) -> str:
        """Makes it the next version of the endpoint's model, and returns what the command said when it was ready.

        Raises CommandFailed.
        """
        model = str(self._directory / "model")
        return await run_module("inferway_cli", "push", ENDPOINT, model, "--wait", "--registry", registry)


async def run_module(module: str, *arguments: str) -> str:
    """What a module prints that is run as a command, which ends when this process does. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        *tethered(module, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        printed, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise CommandFailed(f"{module}: {last_line(complained)}")
    return printed.decode(errors="replace").strip()


def last_line(output: bytes) -> str:
    """Of what a command said: with an error, the one that says why."""
    lines = output.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing").removeprefix("error: ")


def tethered(module: str, *arguments: str) -> list[str]:
    """The command that runs a module and, on Linux, ends it when this process is gone, however it went."""
    return [sys.executable, "-m", "inferway_cli.stack.tether", str(os.getpid()), module, *arguments]
