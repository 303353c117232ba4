"""Follows a rollout to its end: a live view on a terminal, lines elsewhere. Looking changes nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from inferway.errors import Unavailable
from inferway.registry.v1 import rollouts_pb2
from inferway_cli.registry import Registry
from inferway_cli.rollouts.named import is_over, state_name
from inferway_cli.rollouts.view import frame, line

Rollout = rollouts_pb2.Rollout
POLL_SECONDS = 0.5
LINE_SECONDS = 5.0
"""Without a terminal, a line comes with every change, and after so long without one."""
AWAY_SECONDS = 60.0
"""So long a registry that does not answer is asked again."""
TALL_ROWS = 45
"""From here on every metric has its sentence."""
AWAY = "the registry does not answer; gateways go on, and still stop a candidate that fails"


@dataclass(slots=True)
class Watch:
    """One look at a rollout, until it ends or comes to a state."""

    console: Console
    until: str = ""
    """The name of a state, at which the look ends, too."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _told: str = ""
    _told_at: datetime | None = None

    async def follow(self, registry: Registry, name: str) -> Rollout:
        """The rollout as it was at the end of the look. Raises what the first call raises, later Unavailable alone."""
        rollout = await registry.rollout(name)
        with self._live() as live:
            while True:
                self._show(live, rollout)
                if is_over(rollout) or state_name(rollout.state) == self.until:
                    return rollout
                await asyncio.sleep(POLL_SECONDS)
                rollout = await self._read(registry, rollout, live)

    def _live(self) -> AbstractContextManager[Live | None]:
        return Live(console=self.console, auto_refresh=False) if self.console.is_terminal else nullcontext()

    def _show(self, live: Live | None, rollout: Rollout) -> None:
        now = self.now()
        if live is not None:
            live.update(frame(rollout, now, in_full=self.console.height >= TALL_ROWS), refresh=True)
            return
        words = f"{state_name(rollout.state)} {rollout.step} {rollout.reason}"
        if words != self._told:
            self._told, self._told_at = words, now
            self._say(line(rollout, now))
            for title, text in (("why", rollout.reason), ("next", rollout.next)):
                if text:
                    self._say(f"  {title}: {text}")
        elif self._told_at is None or (now - self._told_at).total_seconds() >= LINE_SECONDS:
            self._told_at = now
            self._say(line(rollout, now))

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(Text(text))

    async def _read(self, registry: Registry, last: Rollout, live: Live | None) -> Rollout:
        """The rollout now, as soon as the registry answers."""
        deadline = asyncio.get_running_loop().time() + AWAY_SECONDS
        while True:
            try:
                return await registry.rollout(last.name)
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            if live is not None:
                live.update(Text(AWAY, style="yellow"), refresh=True)
            elif self._told != AWAY:
                self._told = AWAY
                self._say(AWAY)
            await asyncio.sleep(POLL_SECONDS)
