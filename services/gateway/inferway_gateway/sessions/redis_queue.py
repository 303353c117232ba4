"""Acts on their way to Redis: what is asked in one turn of the loop, or while Redis answers, goes as one command.

That is half the processor time of a pipeline of commands and a tenth of that of single ones (docs/adr/0014), and acts
happen in the order in which they were asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from inferway.errors import SessionStoreUnavailable
from inferway_gateway.sessions.redis_script import SCRIPT, SCRIPT_SHA, Act

TIMEOUT_SECONDS = 1.0
"""For a command with all that belongs to it, connecting too; and for waiting until it is sent."""
MAX_ACTS = 256
"""Of one command: Redis serves nobody else meanwhile."""
MAX_BYTES = 4 << 20
"""Of the records of one command; a single larger one goes alone."""
_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Asked:
    key: str
    arguments: tuple[bytes, bytes, bytes, bytes, bytes]
    due: float
    """When it is given up if it has not been sent."""
    reply: asyncio.Future[Any]


class RedisQueue:
    """See the module. Belongs to one event loop."""

    def __init__(self, redis: Redis) -> None:
        """Takes over the client; connects when there is something to do."""
        self._redis = redis
        self._waiting = deque[_Asked]()
        self._sender: asyncio.Task[None] | None = None
        self._write = 0
        self._closed = False
        self._reachable = True

    def ask(
        self, act: Act, key: str, epoch: int = 0, record: bytes = b"", ttl_seconds: float = 0
    ) -> asyncio.Future[Any]:
        """The script's answer: an `Outcome` or, of a claim, epoch and record.

        Fails with SessionStoreUnavailable, at the latest after two timeouts; the act may have happened all the same.
        """
        if self._closed:
            raise _unavailable()
        loop = asyncio.get_running_loop()
        self._write += 1
        arguments = (act.value, b"%d" % epoch, b"%d" % self._write, record, b"%d" % (ttl_seconds * 1000))
        asked = _Asked(key, arguments, loop.time() + TIMEOUT_SECONDS, loop.create_future())
        self._waiting.append(asked)
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        return asked.reply

    async def close(self) -> None:
        """Sends what was asked for and closes the connection."""
        self._closed = True
        if self._sender is not None:
            await self._sender
        await self._redis.aclose()

    async def _send(self) -> None:
        batch: list[_Asked] = []
        try:
            while batch := self._take():
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    answers = await self._exchange(batch)
                await self._settle(batch, answers)
        except (RedisError, OSError, TimeoutError) as error:
            await self._lost(error)
        finally:
            self._sender = None
            _fail([*batch, *self._waiting])
            self._waiting.clear()

    def _take(self) -> list[_Asked]:
        now = asyncio.get_running_loop().time()
        batch: list[_Asked] = []
        size = 0
        while self._waiting and len(batch) < MAX_ACTS:
            asked = self._waiting[0]
            size += len(asked.arguments[3])
            if batch and size > MAX_BYTES:
                break
            self._waiting.popleft()
            if asked.due <= now:
                _fail([asked])
            elif not asked.reply.done():
                batch.append(asked)
        return batch

    async def _exchange(self, batch: list[_Asked]) -> list[Any]:
        keys = [asked.key for asked in batch]
        arguments = [argument for asked in batch for argument in asked.arguments]
        answers: list[Any]
        try:
            answers = await self._redis.evalsha(SCRIPT_SHA, len(keys), *keys, *arguments)
        except NoScriptError:
            answers = await self._redis.eval(SCRIPT, len(keys), *keys, *arguments)
        return answers

    async def _settle(self, batch: list[_Asked], answers: list[Any]) -> None:
        refusal = None
        for asked, answer in zip(batch, answers, strict=True):
            if isinstance(answer, RedisError):
                refusal = answer
                _fail([asked])
            elif not asked.reply.done():
                asked.reply.set_result(answer)
        if refusal is not None:
            await self._lost(refusal)  # a primary that became a replica refuses so; its successor has the same name
        elif not self._reachable:
            self._reachable = True
            _LOG.info("the session store is back")

    async def _lost(self, error: Exception) -> None:
        if self._reachable:
            self._reachable = False
            _LOG.warning("the session store fails", extra={"error": f"{type(error).__name__}: {error}"})
        # What was not read must never be taken for the answer to something else.
        await self._redis.connection_pool.disconnect(inuse_connections=True)


def _unavailable() -> SessionStoreUnavailable:
    return SessionStoreUnavailable("the session store cannot be reached")


def _fail(several: list[_Asked]) -> None:
    for asked in several:
        if not asked.reply.done():
            asked.reply.set_exception(_unavailable())
