"""Which uploads somebody is using, and since when the others are idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from inferway_registry.ledger import WallClock
from inferway_registry.resources import Upload


class Presence:
    """Kept in memory: after a restart an upload counts as used when its lifetime was last extended."""

    def __init__(self, now: WallClock, lifetime: timedelta) -> None:
        """`lifetime` is what every extension gives an upload."""
        self._now = now
        self._lifetime = lifetime
        self._in_use: Counter[str] = Counter()
        self._last_use: dict[str, datetime] = {}

    @contextmanager
    def using(self, upload_id: str) -> Iterator[None]:
        """Marks an upload, one that exists, as in use while a call works on it."""
        self._in_use[upload_id] += 1
        try:
            yield
        finally:
            self._in_use[upload_id] -= 1
            self._last_use[upload_id] = self._now()

    def idle(self, upload: Upload) -> timedelta:
        """How long no call has touched it; zero while one does."""
        if self._in_use[upload.upload]:
            return timedelta()
        extended = upload.expire_time - self._lifetime
        return self._now() - max(extended, self._last_use.get(upload.upload, extended))

    def keep(self, upload_ids: Collection[str]) -> None:
        """Forgets every upload but these, and those in use."""
        self._in_use = +self._in_use
        self._last_use = {upload: at for upload, at in self._last_use.items() if upload in upload_ids}
