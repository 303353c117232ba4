"""How the catalogue is changed: one transaction, one revision, events, audit and answer together or not at all.

A mutation is a function of a `Change`. Repeated with the same request id it is not run again: its first answer is
given again. Once begun it runs to its end, whether or not the caller still waits, so that no caller's going away
leaves a commit in doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from inferway.errors import EtagMismatch, RequestIdReused
from inferway_registry.resources import Action, Event, etag
from inferway_registry.store.reader import Counters, Reader
from inferway_registry.store.sql import Store
from inferway_registry.store.writer import AuditEntry, Writer
from inferway_registry.wording import shown

T = TypeVar("T")

WallClock = Callable[[], datetime]
"""The time of day, aware, in UTC."""

ANSWER_LIFETIME = timedelta(hours=24)
"""How long a repeated request is known as such."""


def now() -> datetime:
    """The wall clock of a real registry."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks for a mutation, and what tells a repeated request from a different one."""

    principal: str
    method: str
    request_id: str = ""
    digest: str = ""
    """Of the whole request; compared when `request_id` comes again."""


OF_REGISTRY = "registry"
"""The principal of what the registry does by itself."""


class Change:
    """One mutation under way: its transaction, and what it did so far."""

    def __init__(self, rows: Writer, counters: Counters, call: Call, now: datetime) -> None:
        self.rows = rows
        self.now = now
        self.revision = counters.revision + 1
        """What resources changed by this mutation carry as their revision."""
        self._counters = counters
        self._call = call
        self._events: list[Event] = []
        self._audit: list[AuditEntry] = []

    @property
    def principal(self) -> str:
        """Who asked for it."""
        return self._call.principal

    @property
    def changed(self) -> bool:
        """Whether the catalogue is different now."""
        return bool(self._events)

    def created(self, resource: str, **details: str) -> None:
        """Notes that a resource was made."""
        self._note(resource, Action.CREATED, "", etag(self.revision), details)

    def updated(self, resource: str, revision: int, **details: str) -> None:
        """Notes that a resource, last changed at `revision`, was changed."""
        self._note(resource, Action.UPDATED, etag(revision), etag(self.revision), details)

    def deleted(self, resource: str, revision: int) -> None:
        """Notes that a resource, last changed at `revision`, was deleted."""
        self._note(resource, Action.DELETED, etag(revision), "", {})

    def audited(self, resource: str, action: Action) -> None:
        """Notes something that is no change of the catalogue, as an upload's beginning."""
        self._add_audit(resource, action, "", "")

    async def write_down(self) -> None:
        """Writes counters, events and audit; the last thing in the transaction."""
        if self._events:
            await self.rows.set_counters(self.revision, self._counters.sequence + len(self._events))
            await self.rows.add_events(self._events)
        await self.rows.add_audit(self._audit)

    def _note(self, resource: str, action: Action, before: str, after: str, details: dict[str, str]) -> None:
        sequence = self._counters.sequence + len(self._events) + 1
        self._events.append(Event(sequence, self.now, resource, action, self.revision, self._call.principal, details))
        self._add_audit(resource, action, before, after)

    def _add_audit(self, resource: str, action: Action, before: str, after: str) -> None:
        call = self._call
        self._audit.append(
            AuditEntry(self.now, call.principal, call.method, call.request_id, resource, action, before, after)
        )


Operation = Callable[[Change], Awaitable[T]]


class Ledger:
    """Runs mutations."""

    def __init__(self, store: Store, now: WallClock, on_change: Callable[[], None]) -> None:
        """`on_change` is called after every commit that changed the catalogue; it must not block."""
        self._store = store
        self._now = now
        self._on_change = on_change
        self._running: set[asyncio.Task[object]] = set()

    def time(self) -> datetime:
        """The time that the next mutation would be noted with."""
        return self._now()

    async def apply(self, call: Call, operation: Operation[T]) -> T:
        """Runs a mutation and returns its result; raises what it raises, and StoreUnavailable or StorageFull."""
        return await self._to_its_end(self._apply(call, operation))

    async def answer_once(self, call: Call, operation: Operation[T], encode: Callable[[T], bytes]) -> bytes:
        """Runs a mutation and returns its encoded result, or the one of the call that had its request id before.

        Raises what the mutation raises, RequestIdReused, StoreUnavailable or StorageFull.
        """

        async def answer(change: Change) -> bytes:
            known = await self.earlier_answer(change.rows, call)
            if known is not None:
                return known
            encoded = encode(await operation(change))
            if call.request_id:
                await change.rows.save_answer(call.request_id, call.digest, encoded, change.now)
            return encoded

        return await self.apply(call, answer)

    async def earlier_answer(self, rows: Reader, call: Call) -> bytes | None:
        """What a call with the same request id was answered, if there was one; raises RequestIdReused."""
        found = await rows.answer(call.request_id) if call.request_id else None
        if found is None:
            return None
        digest, answer = found
        if digest != call.digest:
            raise RequestIdReused(
                "this request_id belongs to a different request; take a new one", request_id=call.request_id
            )
        return answer

    async def forget_old_answers(self) -> None:
        """Drops answers that are older than a repetition may be; raises StoreUnavailable."""
        async with self._store.writing() as rows:
            await rows.forget_answers(self._now() - ANSWER_LIFETIME)

    async def close(self) -> None:
        """Waits for the mutations that run."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _apply(self, call: Call, operation: Operation[T]) -> T:
        async with self._store.writing() as rows:
            change = Change(rows, await rows.counters(), call, self._now())
            result = await operation(change)
            await change.write_down()
        if change.changed:
            self._on_change()
        return result

    async def _to_its_end(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)


def check_etag(resource: str, given: str, revision: int) -> None:
    """Raises EtagMismatch if an etag was given and `resource` has changed since."""
    current = etag(revision)
    if given not in ("", current):
        raise EtagMismatch(
            f"{resource} has changed since it was read; read it again",
            resource=resource,
            expected=shown(given),
            actual=current,
        )
