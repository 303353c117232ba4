"""The sessions that this gateway carries: claims them, keeps them alive, tells an owner that it is none any more."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Callable

from inferway.errors import InferwayError, SessionTakenOver
from inferway_gateway.sessions.store import RENEW_SECONDS, SessionRecord, SessionStore, taken_over
from inferway_gateway.sessions.waiting import Waiting

_LOG = logging.getLogger(__name__)
_TOKEN_BYTES = 18

Owner = Callable[[SessionTakenOver], None]
"""Called if somebody else in this process resumes the session."""


class Sessions:
    """See the module. One for the process."""

    def __init__(
        self, store: SessionStore, grace_seconds: float, *, resumable: bool, max_waiting_bytes: int = 128 << 20
    ) -> None:
        """`grace_seconds`: how long a session waits for its client. `resumable`: a client that comes back finds it."""
        self._store = store
        self.grace_seconds, self.resumable = grace_seconds, resumable
        self.waiting = Waiting(max_waiting_bytes)
        """What all sessions and sequences have not answered."""
        self._owners: dict[str, tuple[int, Owner]] = {}
        """With the epoch of each."""

    async def create(self, record: SessionRecord) -> None:
        """Keeps a new session; raises TooManyConcurrent, SessionStoreUnavailable."""
        await self._store.create(record)

    async def claim(self, key: str) -> SessionRecord:
        """Takes a session over, here or from another gateway; raises SessionNotFound, SessionStoreUnavailable."""
        record = await self._store.claim(key)
        _, owner = self._owners.pop(key, (0, None))
        if owner is not None:
            owner(taken_over())
        return record

    def carry(self, record: SessionRecord, owner: Owner) -> None:
        """`owner` goes on with a session that was created or claimed for it, until it releases or deletes it."""
        self._owners[record.key] = (record.epoch, owner)

    async def commit(self, record: SessionRecord) -> None:
        """What `record` says holds from now on. Raises SessionTakenOver, SessionNotFound, SessionStoreUnavailable."""
        await self._store.commit(record)

    async def release(self, record: SessionRecord) -> None:
        """The session waits for its client to come back. What cannot be written is lost with a line in the log."""
        self._forget(record)
        try:
            await self._store.release(record, self.grace_seconds)
        except SessionTakenOver:
            return
        except InferwayError as error:
            _LOG.warning("a session was not released", extra={"reason": error.reason})

    async def delete(self, record: SessionRecord) -> None:
        """The session is over."""
        self._forget(record)
        try:
            await self._store.delete(record)
        except InferwayError as error:
            _LOG.warning("a session was not deleted", extra={"reason": error.reason})

    async def run(self) -> None:
        """Renews what is carried here, for as long as the process lives."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._store.renew(list(self._owners))
            except InferwayError as error:
                _LOG.warning("sessions were not renewed", extra={"reason": error.reason, "sessions": len(self._owners)})

    async def close(self) -> None:
        """Gives the store back."""
        await self._store.close()

    def _forget(self, record: SessionRecord) -> None:
        epoch, _ = self._owners.get(record.key, (0, None))
        if epoch == record.epoch:
            del self._owners[record.key]


def new_token() -> str:
    """A secret that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def session_key(token: str, tenant: str, endpoint: str, signature: str) -> str:
    """Of the session that `token` opens to this tenant and target only: others do not even disturb it."""
    return key_of("session", token, tenant, endpoint, signature)


def key_of(*parts: str | int) -> str:
    """The name under which stores know what `parts` open together; it does not lead back to them."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
