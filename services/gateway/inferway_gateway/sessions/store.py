"""What outlives a stream: records of sessions, and where they are kept.

A record is written by one owner at a time. Each claim raises its epoch, and a write under an older epoch is refused:
two gateways that both believe they carry a session can never both go on with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from inferway.errors import SessionNotFound, SessionTakenOver, TooManyConcurrent
from inferway_chassis.clock import Clock
from inferway_gateway.tensors import Tensor


class Kept(NamedTuple):
    """A result that its client has not acknowledged."""

    item: int
    result: bytes
    """As the door that sent it encodes it."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Everything that a gateway needs to go on with a session. Never changed."""

    key: str
    """Names the session to stores; derived from a secret that only its client has."""
    endpoint: str
    version: str
    """`models/{model}/versions/{number}`, whose state it is."""
    signature: str
    tenant: str = ""
    epoch: int = 1
    """Raised by each claim."""
    rows: int = 0
    """Of its state; 0 before the first item that was applied."""
    state: tuple[Tensor, ...] = ()
    """By the names of the inputs; empty before the first item that was applied."""
    applied: int = 0
    """Id of the last item that was applied or has failed."""
    kept: tuple[Kept, ...] = ()
    """Oldest first."""


class SessionStore(Protocol):
    """Where records are kept. Every method raises SessionStoreUnavailable if that cannot be reached.

    1. What `create`, `commit` or `release` wrote is what the next `claim` returns, but for its epoch.
    2. An owned record stays until it is released or deleted, as long as its owner renews it.
    3. A released record stays for its grace time.
    """

    shared: bool
    """Other gateway processes see the same records."""

    async def create(self, record: SessionRecord) -> None:
        """Writes the first record of a new session, which the caller owns. Raises TooManyConcurrent."""

    async def claim(self, key: str) -> SessionRecord:
        """Makes the caller the owner, whoever was it before. Raises SessionNotFound."""

    async def commit(self, record: SessionRecord) -> None:
        """Replaces the record. Raises SessionTakenOver if its epoch is not the newest, SessionNotFound."""

    async def release(self, record: SessionRecord, grace_seconds: float) -> None:
        """Replaces the record and gives it up; it is forgotten unless it is claimed in time. Raises as `commit`."""

    async def delete(self, record: SessionRecord) -> None:
        """Forgets it, unless somebody else owns it by now."""

    async def renew(self, keys: Collection[str]) -> None:
        """The caller is alive and still owns these. To be called at least every `RENEW_SECONDS`."""

    async def close(self) -> None:
        """Gives back connections. Records stay, if they can."""


RENEW_SECONDS = 10.0
"""How often owners renew."""
LEASE_SECONDS = 60.0
"""How long a store that outlives gateways keeps a record whose owner does not renew it: the time that a client has to
come back after its gateway died."""


class MemorySessionStore:
    """Records of this process, which end with it."""

    shared = False

    def __init__(self, max_sessions: int, clock: Clock) -> None:
        """Keeps at most so many; released ones make room for new ones, the first to expire before the others."""
        self._max_sessions, self._clock = max_sessions, clock
        self._records: dict[str, SessionRecord] = {}
        self._expiries: dict[str, float] = {}
        """Of released records."""

    async def create(self, record: SessionRecord) -> None:
        """See SessionStore."""
        if not self._has_room():
            raise TooManyConcurrent(f"{self._max_sessions} sessions are open already", limit=self._max_sessions)
        self._records[record.key] = record

    async def claim(self, key: str) -> SessionRecord:
        """See SessionStore."""
        if self._expiries.pop(key, math.inf) <= self._clock():  # a sweep for each of many claims would cost them all
            self._forget(key)
        record = self._records.get(key)
        if record is None:
            raise session_not_found()
        claimed = self._records[key] = replace(record, epoch=record.epoch + 1)
        return claimed

    async def commit(self, record: SessionRecord) -> None:
        """See SessionStore."""
        self._check(record)
        self._records[record.key] = record

    async def release(self, record: SessionRecord, grace_seconds: float) -> None:
        """See SessionStore."""
        await self.commit(record)
        self._expiries[record.key] = self._clock() + grace_seconds

    async def delete(self, record: SessionRecord) -> None:
        """See SessionStore."""
        held = self._records.get(record.key)
        if held is not None and held.epoch == record.epoch:
            self._forget(record.key)

    async def renew(self, keys: Collection[str]) -> None:
        """See SessionStore: its owners live as long as it does."""
        del keys
        self._sweep()

    async def close(self) -> None:
        """See SessionStore: there are none."""

    def _check(self, record: SessionRecord) -> None:
        held = self._records.get(record.key)
        if held is None:
            raise session_not_found()
        if held.epoch != record.epoch:
            raise taken_over()

    def _sweep(self) -> None:
        now = self._clock()
        for key in [key for key, expires_at in self._expiries.items() if expires_at <= now]:
            self._forget(key)

    def _has_room(self) -> bool:
        if len(self._records) >= self._max_sessions:
            self._sweep()
        return len(self._records) < self._max_sessions or self._evict()

    def _evict(self) -> bool:
        first = min(self._expiries, key=self._expiries.__getitem__, default=None)
        if first is not None:
            self._forget(first)
        return first is not None

    def _forget(self, key: str) -> None:
        self._records.pop(key, None)
        self._expiries.pop(key, None)


def session_not_found() -> SessionNotFound:
    """What every store says of a session that it does not have."""
    return SessionNotFound(
        "the session ended or expired, or the gateway that kept it is gone: begin a new one "
        "(several gateways need a shared session store to resume each other's sessions)"
    )


def taken_over() -> SessionTakenOver:
    """What every store says to an owner that is none any more."""
    return SessionTakenOver("another stream has resumed this session")
