"""Records of sessions in Redis, or what speaks its protocol: every gateway at the same URL can go on with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from inferway.errors import TooManyConcurrent
from inferway_chassis.clock import Clock
from inferway_gateway.sessions.codec import Undecodable, decode, encode
from inferway_gateway.sessions.holdings import Held, Holdings
from inferway_gateway.sessions.redis_queue import MAX_ACTS, RedisQueue
from inferway_gateway.sessions.redis_script import PREFIX, Act, Outcome
from inferway_gateway.sessions.store import LEASE_SECONDS, SessionRecord, session_not_found, taken_over

_LOG = logging.getLogger(__name__)


class RedisSessionStore:
    """A SessionStore whose records outlive this gateway by `lease_seconds`.

    An act that fails with SessionStoreUnavailable may have happened; `commit` and `release` may be repeated.
    """

    shared = True

    def __init__(self, url: str, max_sessions: int, clock: Clock, lease_seconds: float = LEASE_SECONDS) -> None:
        """`max_sessions` bounds what this gateway keeps there. Raises ValueError for a URL that is none."""
        # Deadlines are the queue's, and whoever asked decides whether to ask again.
        redis: Redis = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None)
        self._queue = RedisQueue(redis)
        self._holdings = Holdings(max_sessions, clock)
        self._max_sessions, self._lease_seconds = max_sessions, lease_seconds

    async def create(self, record: SessionRecord) -> None:
        """See SessionStore."""
        held = Held(record.key, record.epoch)
        evicted = None if self._holdings.room() else self._make_room()
        self._holdings.own(held, self._lease_seconds)
        if evicted is not None:
            await self._ask(Act.DELETE, evicted)
        await self._ask(Act.CREATE, held, encode(record), self._lease_seconds)

    async def claim(self, key: str) -> SessionRecord:
        """See SessionStore."""
        answer = await self._queue.ask(Act.CLAIM, PREFIX + key, ttl_seconds=self._lease_seconds)
        if answer == Outcome.GONE:
            raise session_not_found()
        epoch, data = answer
        try:
            record = decode(key, int(epoch), data)
        except Undecodable as error:
            _LOG.warning("a record in the session store cannot be read: %s", error)
            raise session_not_found() from error
        self._holdings.own(Held(key, record.epoch), self._lease_seconds)
        return record

    async def commit(self, record: SessionRecord) -> None:
        """See SessionStore."""
        held = Held(record.key, record.epoch)
        await self._write(held, record, self._lease_seconds)
        self._holdings.extend(held, self._lease_seconds)

    async def release(self, record: SessionRecord, grace_seconds: float) -> None:
        """See SessionStore."""
        held = Held(record.key, record.epoch)
        self._holdings.release(held, grace_seconds)
        await self._write(held, record, grace_seconds)

    async def delete(self, record: SessionRecord) -> None:
        """See SessionStore."""
        held = Held(record.key, record.epoch)
        self._holdings.forget(held)
        await self._ask(Act.DELETE, held)

    async def renew(self, keys: Collection[str]) -> None:
        """See SessionStore."""
        owned = self._holdings.renew(keys, self._lease_seconds)
        for start in range(0, len(owned), MAX_ACTS):  # commits go between
            part = owned[start : start + MAX_ACTS]
            await asyncio.gather(*(self._ask(Act.RENEW, held, ttl_seconds=self._lease_seconds) for held in part))

    async def close(self) -> None:
        """See SessionStore."""
        await self._queue.close()

    def _make_room(self) -> Held:
        evicted = self._holdings.evict()
        if evicted is None:
            raise TooManyConcurrent(f"{self._max_sessions} sessions are open already", limit=self._max_sessions)
        return evicted

    async def _write(self, held: Held, record: SessionRecord, seconds: float) -> None:
        outcome = await self._ask(Act.WRITE, held, encode(record), seconds)
        if outcome == Outcome.DONE:
            return
        self._holdings.forget(held)
        raise taken_over() if outcome == Outcome.TAKEN else session_not_found()

    def _ask(self, act: Act, held: Held, record: bytes = b"", ttl_seconds: float = 0) -> asyncio.Future[Any]:
        return self._queue.ask(act, PREFIX + held.key, held.epoch, record, ttl_seconds)
