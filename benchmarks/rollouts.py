"""Rollouts under 200 calls a second, with real models and processes: `make rollouts`, six minutes.

Bad candidates with 5 % of the calls, a good one that goes all the way, another whose worker is killed meanwhile, and
copies to a version whose process is stopped. What is printed stands in docs/rollouts.md.

    python -m benchmarks.rollouts [broken slow blank fatal abort good killed shadow]
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.testbed.rollout_scenes import (
    Scene,
    aborted_candidate,
    bad_candidate,
    doomed_candidate,
    good_candidate,
    killed_worker,
    stopped_shadow,
)
from tests.testbed.slow_model import WORKER_SETTINGS
from tests.testbed.stack import Stack

SCENES: dict[str, Callable[[Scene], Awaitable[object]]] = {
    **{kind: lambda scene, kind=kind: bad_candidate(scene, kind) for kind in ("broken", "slow", "blank")},  # type: ignore[misc]
    "fatal": doomed_candidate,
    "abort": aborted_candidate,
    "good": lambda scene: good_candidate(scene, ((500, 10.0), (2500, 10.0), (5000, 10.0))),
    "killed": killed_worker,
    "shadow": lambda scene: stopped_shadow(scene, 6.0, 12),
}


async def measure(scene: Scene, names: list[str]) -> None:
    """Prints the figures of one scene after the other."""
    for name in names:
        sys.stdout.write(f"{await SCENES[name](scene)}\n")
        sys.stdout.flush()


def main() -> None:
    """Runs on a stack of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", nargs="*", default=list(SCENES), help=f"of {', '.join(SCENES)}; all of them if none")
    names = parser.parse_args().scenes
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory) / "models"
        subprocess.run([sys.executable, "-m", "tests.testbed.savedmodels", str(models)], check=True, timeout=300)
        with Stack(Path(directory) / "stack", settings={"inference": WORKER_SETTINGS}) as stack:
            asyncio.run(measure(Scene(stack, models), names))


if __name__ == "__main__":
    main()
