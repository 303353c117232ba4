"""What the keys do. Each action runs beside the drives; pressed again while it runs, its key does nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

from examples.fleet.journal import Journal
from examples.fleet.model import ArrivalModel, CommandFailed
from examples.fleet.network import Network
from examples.fleet.stack import NotPossible, Stack
from examples.fleet.vehicle import ENDPOINT
from examples.fleet.workers import Workers
from inferway.registry.v1 import resources_pb2
from inferway_cli.registry import Registry
from inferway_client import InferwayError

CUT_SECONDS = 3.0
KEYS = "krmngG+-q"


class Controls:
    """See the module; `fit` adds (1) or sends home (-1) a vehicle, `quit` ends it all."""

    def __init__(  # noqa: PLR0913 - what the keys reach
        self,
        stack: Stack,
        model: ArrivalModel,
        registry: Registry,
        workers: Workers,
        networks: Sequence[Network],
        journal: Journal,
        *,
        fit: Callable[[int], None],
        leave: Callable[[], None],
    ) -> None:
        """Nothing was pressed."""
        self._stack, self._model, self._registry, self._workers = stack, model, registry, workers
        self._networks, self._journal = networks, journal
        self._running: dict[str, asyncio.Task[None]] = {}
        self.migrates = False
        """What the endpoint says open streams do when its version changes."""
        self._actions: dict[str, Callable[[], Awaitable[None]]] = {
            "k": self._kill_worker,
            "r": self._roll_out,
            "m": self._toggle_policy,
            "n": self._cut_network,
            "g": lambda: self._end_gateway(signal.SIGKILL),
            "G": lambda: self._end_gateway(signal.SIGTERM),
        }
        self._immediate: dict[str, Callable[[], None]] = {
            "+": lambda: fit(1),
            "=": lambda: fit(1),
            "-": lambda: fit(-1),
            "q": leave,
        }

    @property
    def legend(self) -> dict[str, str]:
        """What each key would do now, in a word or two."""
        return {
            "k": "kill worker",
            "r": "rollout",
            "m": "finish" if self.migrates else "migrate",
            "n": "cut net",
            "g": "gateway",
            "+-": "vehicles",
            "q": "quit",
        }

    def press(self, key: str) -> None:
        """Does what the key says; other keys do nothing."""
        if key in self._immediate:
            self._immediate[key]()
        elif key in self._actions and key not in self._running:
            task = self._running[key] = asyncio.create_task(self._act(key))
            task.add_done_callback(lambda _: self._running.pop(key))

    async def settled(self) -> None:
        """Returns when nothing runs any more."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancels what still runs."""
        for task in self._running.values():
            task.cancel()
        await self.settled()

    async def _act(self, key: str) -> None:
        try:
            await self._actions[key]()
        except (NotPossible, CommandFailed) as why:
            self._journal.remark(f"{key}: {why}")
        except InferwayError as error:
            self._journal.remark(f"{key}: {error.message}")

    async def _kill_worker(self) -> None:
        name = self._stack.kill_worker()
        await self._workers.ask()
        left = any(view.serves for view in self._workers.views if view.name != name)
        self._journal.event(f"kill -9 {name}{'' if left else ', and nobody is left who serves'}")

    async def _end_gateway(self, number: signal.Signals) -> None:
        words = "kill -9" if number is signal.SIGKILL else "drain"
        self._journal.event(f"{words} {self._stack.end_gateway(number)}")

    async def _cut_network(self) -> None:
        self._journal.event(f"network cut for {CUT_SECONDS:g} s")
        for network in self._networks:
            network.cut()
        try:
            await asyncio.sleep(CUT_SECONDS)
        finally:
            for network in self._networks:
                network.mend()

    async def _roll_out(self) -> None:
        self._journal.event("rollout: the workers load the next version")
        said = await self._model.publish(self._stack.registry)
        then = "migrate to it" if self.migrates else "finish on theirs"
        self._journal.event(f"{said.removeprefix(f'{ENDPOINT} ')}, open sessions {then}")

    async def _toggle_policy(self) -> None:
        await self.set_policy(migrates=not self.migrates)
        then = "move on with their state" if self.migrates else "finish on their version"
        self._journal.remark(f"from the next rollout on, open sessions {then}")

    async def set_policy(self, *, migrates: bool) -> None:
        """Tells the endpoint what open streams do. Raises the registry's errors."""
        policy = resources_pb2.STREAM_POLICY_MIGRATE if migrates else resources_pb2.STREAM_POLICY_FINISH
        endpoint = await self._registry.endpoint(ENDPOINT)
        await self._registry.set_endpoint(endpoint, automatic=endpoint.automatic, streams=policy)
        self.migrates = migrates
