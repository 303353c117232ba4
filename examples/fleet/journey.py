"""One run of the example: everything is set up, vehicles drive, keys are pressed, and at the end the books are read."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from rich.console import Console
from rich.live import Live

from examples.fleet.audit import Totals
from examples.fleet.controls import Controls
from examples.fleet.journal import Event, Journal
from examples.fleet.keys import keys_pressed
from examples.fleet.latencies import Latencies
from examples.fleet.model import ArrivalModel
from examples.fleet.network import Network
from examples.fleet.options import Press
from examples.fleet.screen import Screen, summary
from examples.fleet.stack import Stack
from examples.fleet.tracks import Tracks
from examples.fleet.vehicle import Surroundings
from examples.fleet.vehicles import Vehicles
from examples.fleet.workers import Workers
from inferway_cli.console import CommandError
from inferway_cli.progress import Steps
from inferway_cli.registry import Registry
from inferway_client import Client

FRAME_SECONDS = 0.1
READY_SECONDS = 120.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Journey:
    """`prepare`, then `drive`, once."""

    def __init__(self, console: Console, tracks: Tracks, model: ArrivalModel, step_seconds: float) -> None:
        """On a terminal the console shows frames, elsewhere a line for each event."""
        self._console, self._tracks, self._model, self._step_seconds = console, tracks, model, step_seconds
        self._began = time.monotonic()
        self._over = asyncio.Event()
        self._journal = Journal(self._clock, self._tell)

    def remark(self, text: str) -> None:
        """For the list of what happened."""
        self._journal.remark(text)

    async def prepare(self, stack: Stack, steps: Steps, exits: AsyncExitStack, workers: int) -> None:
        """Publishes the model, waits until so many workers have it, and connects; `exits` undoes that.

        Raises CommandFailed, CommandError, and the registry's errors.
        """
        registry = await exits.enter_async_context(Registry(stack.registry))
        self._workers = Workers(registry)
        with steps.step("publish the model") as step:
            step.detail = await self._model.publish(stack.registry)
        with steps.step("load it on every worker"):
            await self._until_loaded(workers)
            self._tracks.look_ahead(0)
        networks = [await exits.enter_async_context(Network(gateway)) for gateway in stack.gateways]
        client = await exits.enter_async_context(Client(",".join(network.address for network in networks)))
        self._vehicles = Vehicles(self._surroundings(client))
        exits.push_async_callback(self._vehicles.close)
        self._controls = Controls(
            stack,
            self._model,
            registry,
            self._workers,
            networks,
            self._journal,
            fit=self._vehicles.fit,
            leave=self._over.set,
        )
        exits.push_async_callback(self._controls.close)
        await self._controls.set_policy(migrates=False)

    async def drive(self, vehicles: int, seconds: float | None, presses: Sequence[Press]) -> bool:
        """Until somebody quits, or for so many seconds; says what happened, and returns whether all was well."""
        loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._vehicles.fit(vehicles)
        for press in presses:
            loop.call_later(press.at, self._controls.press, press.key)
        if seconds is not None:
            loop.call_later(seconds, self._over.set)
        background = [asyncio.create_task(self._workers.watch()), asyncio.create_task(self._keep_time())]
        try:
            with _stopped_by_signals(self._over.set), keys_pressed(sys.stdin, self._controls.press):
                await self._show()
        finally:
            for task in background:
                task.cancel()
        for line in summary(self._vehicles):
            self._console.print(line, markup=False, soft_wrap=True)
        return self._vehicles.around.totals.clean

    async def _show(self) -> None:
        """Until it is over and everybody has the last answer."""
        if not self._console.is_terminal:
            await self._over.wait()
            await self._vehicles.finish()
            return
        screen = Screen(self._vehicles, self._workers, self._controls)
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while not self._over.is_set():
                live.update(screen.frame(*self._console.size), refresh=True)
                await asyncio.sleep(FRAME_SECONDS)
            await self._vehicles.finish()

    async def _keep_time(self) -> None:
        while True:
            self._tracks.look_ahead(self._clock() / self._step_seconds)
            self._vehicles.tell_gaps()
            await asyncio.sleep(self._step_seconds)

    async def _until_loaded(self, workers: int) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._workers.until_ready(workers)
        except TimeoutError:
            raise CommandError(f"not every worker has the model after {READY_SECONDS:g} s") from None

    def _surroundings(self, client: Client) -> Surroundings:
        return Surroundings(
            client=client,
            tracks=self._tracks,
            weights=self._model.weights,
            totals=Totals(),
            latencies=Latencies(),
            journal=self._journal,
            clock=self._clock,
            step_seconds=self._step_seconds,
        )

    def _clock(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, event: Event) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{event.at:6.1f} s  {event.text}", markup=False, soft_wrap=True)


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and the like are another way to quit, with the same order at the end."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
