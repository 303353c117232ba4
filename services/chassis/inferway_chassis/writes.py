"""Finds streams whose clients do not read. One timer watches them all: one for each message would cost each message."""

from __future__ import annotations

import asyncio
from typing import Any

LOOKS = 4
"""In the time that a write may take."""


class Writes:
    """The writes that are under way, each by the task that waits for it. One for each server."""

    def __init__(self, limit_seconds: float) -> None:
        """Cancels a task that waits for longer; it is then one that `gave_up`."""
        self.limit_seconds = limit_seconds
        self._began: dict[asyncio.Task[Any], float] = {}
        self._given_up = set[asyncio.Task[Any]]()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, task: asyncio.Task[Any]) -> None:
        """`task` waits for its client to take a message."""
        if self._loop is None:
            self._loop = task.get_loop()
            self._look_later()
        self._began[task] = self._loop.time()

    def end(self, task: asyncio.Task[Any]) -> None:
        """It does no longer."""
        self._began.pop(task, None)

    def gave_up(self, task: asyncio.Task[Any]) -> bool:
        """Whether `task` was cancelled from here; it may go on to say so to its client."""
        if task not in self._given_up:
            return False
        self._given_up.discard(task)
        task.uncancel()
        return True

    def _look(self) -> None:
        assert self._loop is not None
        overdue = self._loop.time() - self.limit_seconds
        for task in [task for task, began in self._began.items() if began <= overdue]:
            del self._began[task]
            self._given_up.add(task)
            task.cancel()
        if self._began:
            self._look_later()
        else:
            self._loop = None  # until there is another write

    def _look_later(self) -> None:
        assert self._loop is not None
        self._loop.call_later(self.limit_seconds / LOOKS, self._look)
