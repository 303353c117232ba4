"""Many vehicles, each a session of a stateful model, and keys to break things: `python -m examples.fleet`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

from rich.console import Console

from examples.eta.drives import Town
from examples.fleet.gpx import GpxTracks, UnusableTrack
from examples.fleet.journey import Journey
from examples.fleet.model import ArrivalModel, CommandFailed
from examples.fleet.options import VEHICLES, Options, parse
from examples.fleet.stack import JoinedStack, Stack, StartedStack
from examples.fleet.tracks import MAX_VEHICLES, SimulatedTracks, Tracks
from inferway_cli.console import INTERRUPTED, CommandError, explain, report
from inferway_cli.progress import Steps
from inferway_client import InferwayError


async def run(options: Options) -> bool:
    """Everything, from training to the last answer; True if no answer was lost, doubled, out of order or wrong."""
    console = Console(highlight=False)
    steps = Steps(console)
    tracks, vehicles = _tracks(options)
    model = ArrivalModel(options.model)
    if not model.trained:
        with steps.step("train the model, once"):
            await model.train()
    async with AsyncExitStack() as exits:
        journey = Journey(console, tracks, model, options.step_seconds)
        stack = await _stack(options, steps, exits, journey.remark)
        await journey.prepare(stack, steps, exits, 0 if options.gateways else options.workers)
        clean = await journey.drive(vehicles, options.seconds, options.presses)
        steps.say("stopping")
    return clean


def _tracks(options: Options) -> tuple[Tracks, int]:
    """And how many vehicles there shall be. Raises UnusableTrack."""
    if not options.gpx:
        return SimulatedTracks(Town.build()), options.vehicles or VEHICLES
    recorded = GpxTracks(options.gpx)
    return recorded, options.vehicles or min(len(recorded), MAX_VEHICLES)


async def _stack(options: Options, steps: Steps, exits: AsyncExitStack, tell: Callable[[str], None]) -> Stack:
    if options.gateways:
        return JoinedStack(list(options.gateways), options.registry)
    with steps.step("start the stack") as step:
        started = await exits.enter_async_context(StartedStack(options.workers, options.redis, tell))
        step.detail = f"gateway {started.gateways[0]}"
    return started


def main() -> int:
    """Returns the exit code: 0, 1 for anything wrong, 130 if it was interrupted before it drove."""
    options = parse()

    async def until_interrupted() -> bool:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        return await run(options)

    try:
        return 0 if asyncio.run(until_interrupted()) else 1
    except (CommandFailed, CommandError, UnusableTrack) as error:
        report(str(error))
    except InferwayError as error:
        report(explain(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    return 1


if __name__ == "__main__":
    sys.exit(main())
