"""A session store with what tests need around it: several owners, and its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from redis.asyncio import Redis

from inferway.datatypes import Datatype
from inferway_gateway.sessions.redis_script import PREFIX
from inferway_gateway.sessions.redis_store import RedisSessionStore
from inferway_gateway.sessions.store import LEASE_SECONDS, Kept, MemorySessionStore, SessionRecord, SessionStore
from inferway_gateway.tensors import Tensor
from tests.testbed.redis_server import RedisServer

SHORT_SECONDS = 0.05
"""A grace that real time outlasts soon."""


class Bed(Protocol):
    """One place where records are, and whoever uses it."""

    def open(self, max_sessions: int = 100_000) -> SessionStore:
        """The store as another gateway opens it, if gateways share it; else always the same."""

    async def end_of(self, key: str) -> None:
        """Returns when SHORT_SECONDS are over for the record."""


class MemoryBed:
    """Its clock is turned by hand."""

    def __init__(self) -> None:
        self._now = 0.0
        self._store: MemorySessionStore | None = None

    def open(self, max_sessions: int = 100_000) -> MemorySessionStore:
        """See Bed."""
        self._store = self._store or MemorySessionStore(max_sessions, lambda: self._now)
        return self._store

    async def end_of(self, key: str) -> None:
        """See Bed."""
        del key
        self._now += SHORT_SECONDS


class RedisBed:
    """Gateways at one server, which keeps the time."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.redis: Redis = Redis.from_url(server.url, protocol=2)
        """To look into the server."""
        self.now = 0.0
        """On the clock of the gateways."""
        self._stores: list[RedisSessionStore] = []

    def open(self, max_sessions: int = 100_000, lease_seconds: float = LEASE_SECONDS) -> RedisSessionStore:
        """See Bed."""
        store = RedisSessionStore(self.server.url, max_sessions, lambda: self.now, lease_seconds)
        self._stores.append(store)
        return store

    async def end_of(self, key: str) -> None:
        """See Bed."""
        async with asyncio.timeout(10):
            while await self.redis.exists(PREFIX + key):
                await self.redis.blpop(["nothing"], timeout=SHORT_SECONDS)  # the server's own time

    async def life_of(self, key: str) -> float:
        """Seconds that the record has to live."""
        return float(await self.redis.pttl(PREFIX + key)) / 1000

    async def close(self) -> None:
        """Closes every store that was opened."""
        for store in self._stores:
            await store.close()
        await self.redis.aclose()


@asynccontextmanager
async def redis_bed(server: RedisServer) -> AsyncIterator[RedisBed]:
    """A bed that is closed at the end."""
    bed = RedisBed(server)
    try:
        yield bed
    finally:
        await bed.close()


def record(key: str, applied: int = 0, state_bytes: int = 32, kept: tuple[Kept, ...] = ()) -> SessionRecord:
    """A record whose state tells of its key and of the item that was applied last."""
    pattern = f"{key}/{applied};".encode()
    raw = (pattern * (state_bytes // len(pattern) + 1))[: state_bytes // 4 * 4]
    state = Tensor("h", Datatype.FP32, (1, len(raw) // 4), raw)
    return SessionRecord(key, "e", "models/m/versions/1", "step", "gold", 1, 1, (state,), applied, kept)
