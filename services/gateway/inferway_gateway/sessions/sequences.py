"""The sequences of this gateway, by tenant, target and id: puts items in line, forgets what is idle."""

from __future__ import annotations

import asyncio
import json
from contextvars import Context
from dataclasses import dataclass

from inferway.errors import MemoryPressure, TooManyConcurrent
from inferway_gateway.envelope import Ask
from inferway_gateway.predictor import Opening, Predictor
from inferway_gateway.sessions.sequence import Correlation, Sequence, Turn
from inferway_gateway.sessions.sessions import Sessions, key_of

SWEEP_SECONDS = 1.0
"""How often idle sequences are looked for."""


@dataclass(frozen=True, slots=True)
class SequenceLimits:
    """How many sequences there may be, how long without a request, and how much may wait."""

    max_sequences: int = 4096
    idle_seconds: float = 60.0
    max_bytes: int = 128 << 20
    """Of the inputs of all items that are unanswered; a single one is taken in any case."""


class Sequences:
    """See the module. One for the process."""

    def __init__(self, predictor: Predictor, sessions: Sessions, limits: SequenceLimits) -> None:
        """State is kept by `sessions`, and so within their limit, too."""
        self._predictor, self._sessions, self.limits = predictor, sessions, limits
        self._sequences: dict[str, Sequence] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        """Of those that have items."""
        self._bytes = 0
        """Of the inputs of unanswered items."""

    def submit(self, ask: Ask, correlation: Correlation) -> Turn | None:
        """Puts an item in line: its `result` follows, or `abandon` it.

        None if the model keeps no state: `ask` is a request like any other, as it is for Triton. Raises
        TooManyConcurrent, MemoryPressure, and what `Predictor.open_route` raises. The result raises InvalidParameter if
        the sequence was not started, SessionVersionGone, SessionStoreUnavailable, and what `Predictor.submit` raises.
        """
        key = key_of(json.dumps((ask.caller.tenant, *ask.selector, correlation.id)))
        sequence = self._sequences.get(key)
        if (sequence is None or correlation.start) and not self._keeps_state(ask, key):
            return None
        byte_count = self._room_for(ask)
        if sequence is None:
            sequence = self._new(key)
        turn = self._turn(ask, correlation)
        sequence.offer(turn)
        self._hold(turn, byte_count)
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
        opening = Opening(ask.selector, ask.unit or key, ask.outputs, ask.field_names)
        route = self._predictor.open_route(opening)
        route.close()
        return route.plan is not None

    def _room_for(self, ask: Ask) -> int:
        """Bytes of the inputs; raises MemoryPressure if they are too many."""
        byte_count = sum([len(tensor.raw) for tensor in ask.inputs])
        limit = self.limits.max_bytes
        if self._bytes and self._bytes + byte_count > limit:
            raise MemoryPressure(f"{self._bytes} bytes of sequences are waiting already, of {limit} at most")
        return byte_count

    def _turn(self, ask: Ask, correlation: Correlation) -> Turn:
        result = asyncio.get_running_loop().create_future()
        return Turn(ask, correlation, self._predictor.clock() + ask.timeout_seconds, result)

    def _hold(self, turn: Turn, byte_count: int) -> None:
        self._bytes += byte_count

        def release(_: object) -> None:
            self._bytes -= byte_count

        turn.result.add_done_callback(release)

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
