"""What can be asked of the example on its command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.fleet.controls import KEYS
from examples.fleet.model import ROOT
from examples.fleet.tracks import MAX_VEHICLES
from inferway_cli.addresses import DEFAULT_REGISTRY
from inferway_cli.stack.ports import MAX_WORKERS

VEHICLES = 24
STEP_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Press:
    """A key that is pressed by itself, so many seconds after the start."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Options:
    """See `parse`."""

    vehicles: int
    """0 is as many as there are tracks, or VEHICLES."""
    step_seconds: float
    gpx: Sequence[Path]
    workers: int
    redis: str
    gateways: Sequence[str]
    """Of a stack that runs already; empty starts one."""
    registry: str
    model: Path
    seconds: float | None
    presses: Sequence[Press]


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Reads a command line, the process's own if None; exits with 2 and says why if it cannot be."""
    parser = argparse.ArgumentParser(prog="python -m examples.fleet", description="Vehicles on streams that survive.")
    add = parser.add_argument
    add("--vehicles", type=_between(1, MAX_VEHICLES), default=0, help=f"at the start, {VEHICLES} if not said")
    add("--step-seconds", type=_positive, default=STEP_SECONDS, help="between two positions, 5 s apart on the road")
    add("--gpx", type=Path, nargs="+", default=[], metavar="FILE", help="replay recorded tracks instead of simulated")
    add("--workers", type=_between(1, MAX_WORKERS), default=3, help="of the stack that is started")
    add("--redis", default="", metavar="URL", help="start two gateways, which share their sessions there")
    add("--target", default="", metavar="HOST:PORT,…", help="join the gateways of a stack that runs already")
    add("--registry", default=DEFAULT_REGISTRY, metavar="HOST:PORT", help="of that stack")
    add("--model", type=Path, default=ROOT / "build" / "fleet" / "eta", help="where the trained model is, or goes")
    add("--seconds", type=_positive, help="end by itself after so long")
    add("--press", type=_presses, default=[], metavar="k@5,n@10", help="press keys by itself, at these seconds")
    found = parser.parse_args(arguments)
    return Options(
        vehicles=found.vehicles,
        step_seconds=found.step_seconds,
        gpx=found.gpx,
        workers=found.workers,
        redis=found.redis,
        gateways=[target for target in found.target.split(",") if target],
        registry=found.registry,
        model=found.model.absolute(),
        seconds=found.seconds,
        presses=found.press,
    )


def _presses(text: str) -> list[Press]:
    presses = []
    for part in text.split(","):
        key, _, at = part.partition("@")
        if len(key) != 1 or key not in KEYS:
            raise argparse.ArgumentTypeError(f"{part!r}: the keys are {' '.join(KEYS)}")
        presses.append(Press(key, _positive(at)))
    return sorted(presses, key=lambda press: press.at)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return number


def _between(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {least} to {most}")
        return int(text)

    return convert
