"""The sequences of this gateway, by tenant, target and id: puts items in line, forgets what is idle."""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass

from inferway.errors import InferwayError, TooManyConcurrent
from inferway_gateway.envelope import Ask
from inferway_gateway.predictor import Opening, Predictor
from inferway_gateway.sessions.sequence import Correlation, Sequence, Turn
from inferway_gateway.sessions.sessions import Sessions, key_of

SWEEP_SECONDS = 1.0
"""How often idle sequences are looked for."""


@dataclass(frozen=True, slots=True)
class SequenceLimits:
    """How many sequences there may be, and how long without a request."""

    max_sequences: int = 4096
    idle_seconds: float = 60.0


class Sequences:
    """See the module. One for the process."""

    def __init__(self, predictor: Predictor, sessions: Sessions, limits: SequenceLimits) -> None:
        """State is kept by `sessions`, and so within their limit, too."""
        self._predictor, self._sessions, self.limits = predictor, sessions, limits
        self._sequences: dict[str, Sequence] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        """Of those that have items."""

    def submit(self, ask: Ask, correlation: Correlation) -> Turn | None:
        """Puts an item in line: its `result` follows, or `abandon` it.

        None if the model keeps no state: `ask` is a request like any other, as it is for Triton. Raises
        TooManyConcurrent, MemoryPressure, and what `Predictor.open_route` raises. The result raises InvalidParameter if
        the sequence was not started, SessionVersionGone, SessionStoreUnavailable, and what `Predictor.submit` raises.
        """
        key = key_of("sequence", ask.caller.tenant, *ask.selector, correlation.id)
        sequence = self._sequences.get(key)
        if (sequence is None or correlation.start) and not self._keeps_state(ask, key):
            return None
        byte_count = self._sessions.waiting.take(ask.inputs)
        try:
            turn = self._turn(ask, correlation)
            sequence = sequence or self._new(key)
            sequence.offer(turn)
        except InferwayError:
            self._sessions.waiting.give_back(byte_count)
            raise
        turn.result.add_done_callback(lambda _: self._sessions.waiting.give_back(byte_count))
        if key not in self._running:
            # An empty context: the task serves many callers, and is part of nobody's trace.
            self._running[key] = asyncio.create_task(self._run(key, sequence), name="sequence", context=Context())
        return turn

    async def run(self) -> None:
        """Sweeps, for as long as the process lives."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep()

    async def sweep(self) -> None:
        """Forgets those that are idle now."""
        for key, sequence in list(self._sequences.items()):
            if self._sequences.get(key) is sequence and key not in self._running and sequence.idle:
                del self._sequences[key]
                await sequence.end()

    async def close(self) -> None:
        """Gives up what is in flight, and leaves sequences to other gateways, if there is a store for that."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(sequence.release() for sequence in self._sequences.values()))

    def _keeps_state(self, ask: Ask, key: str) -> bool:
        opening = Opening(ask.selector, ask.unit or key, ask.outputs, ask.field_names, headers=ask.caller.headers)
        route = self._predictor.open_route(opening)
        route.close()
        return route.plan is not None

    def _turn(self, ask: Ask, correlation: Correlation) -> Turn:
        result = asyncio.get_running_loop().create_future()
        return Turn(ask, correlation, self._predictor.clock() + ask.timeout_seconds, result)

    def _new(self, key: str) -> Sequence:
        limit = self.limits.max_sequences
        if len(self._sequences) >= limit:
            raise TooManyConcurrent(f"{limit} sequences are open already", limit=limit)
        sequence = self._sequences[key] = Sequence(key, self._predictor, self._sessions, self.limits.idle_seconds)
        return sequence

    async def _run(self, key: str, sequence: Sequence) -> None:
        try:
            await sequence.run()
        finally:
            del self._running[key]
        if not sequence.live:
            del self._sequences[key]
