"""The books of one stream: which items are unanswered, which results nobody has taken, what the server has been told.

    added ─► sent ─► result received ─► taken by the caller ─► acknowledged

A stream lives on one call after another. What a lost call leaves unanswered goes out again on the next one, in order
and under the same ids, and a result is given to the caller once, however often it arrives. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")


@dataclass(slots=True)
class Item(Generic[P]):
    """An item without a result."""

    id: int
    payload: P
    size: int
    """Of the payload, in bytes."""
    deadline: float
    """On the caller's clock, from when it was added: calls come and go, this stays."""
    sent: bool = False
    """On the call that there is now, or the server is known to have it."""


class Ledger(Generic[P, R]):
    """See the module. P is what an item carries, R what a result is."""

    def __init__(self, acknowledged_item: int = 0) -> None:
        """`acknowledged_item`: the last result that the caller has of the session that this stream goes on with."""
        self.window = 0
        """Items that may be in flight, as the server permits it."""
        self.applied_item = acknowledged_item
        """The last item of the session that is known to be applied or to have failed."""
        self.taken_item = acknowledged_item
        """The item whose result was taken last."""
        self._last_id = self._inherited_upto = acknowledged_item
        self._in_session = self._acknowledges = False
        self._unanswered: dict[int, Item[P]] = {}
        self._results: deque[tuple[int, R]] = deque()
        self._untaken: set[int] = set()
        self._start_call(acknowledged_item)

    def _start_call(self, repeated_upto: int) -> None:
        self._waiting: deque[Item[P]] = deque()
        self._repeated_upto, self._came_upto = repeated_upto, self.taken_item
        self._owed = repeated_upto - self._came_upto
        self._arrived: deque[int] = deque()
        self._taken = self._acknowledged = 0

    @property
    def in_flight(self) -> int:
        """Items whose results were not taken."""
        return len(self._unanswered) + len(self._results)

    @property
    def unanswered(self) -> int:
        """Items without a result."""
        return len(self._unanswered)

    @property
    def owed(self) -> int:
        """Results that the call has yet to bring: of what was sent on it, and what a session sends again."""
        return self._owed

    @property
    def behind(self) -> int:
        """Results taken that were not acknowledged."""
        return self._taken - self._acknowledged if self._acknowledges else 0

    @property
    def has_result(self) -> bool:
        """There is one to take."""
        return bool(self._results)

    @property
    def has_work(self) -> bool:
        """An item waits to be sent, or an acknowledgement cannot wait any longer."""
        return bool(self._waiting) or 2 * self.behind >= self.window

    @property
    def all_sent(self) -> bool:
        """No item waits for the call, and the server needs to hear of no result any more."""
        if self._waiting:
            return False
        return not self._acknowledges or not (self._owed or self._results or self.behind)

    @property
    def next_id(self) -> int:
        """Of the item that is added next."""
        return self._last_id + 1

    @property
    def first_deadline(self) -> float | None:
        """Of the unanswered items."""
        return min((item.deadline for item in self._unanswered.values()), default=None)

    @property
    def acknowledged(self) -> int:
        """Results of this call that were acknowledged."""
        return self._acknowledged

    def begin_call(self, window: int, *, acknowledges: bool, applied_item: int | None = None) -> None:
        """A new call is open; what is unanswered waits to be sent on it.

        Args:
            window: Items that may be in flight on it.
            acknowledges: They are in flight until their results are acknowledged.
            applied_item: Of the session, if there is one, which was resumed with `taken_item` as acknowledged: the
                results after that and up to this one come again.
        """
        if not self._in_session and applied_item is not None:
            self._inherited_upto = applied_item
            self._last_id = max(self._last_id, applied_item)
        self.window, self._acknowledges = window, acknowledges
        self._in_session = applied_item is not None
        self.applied_item = max(self.applied_item, applied_item or 0)
        self._start_call(max(self.taken_item, applied_item) if applied_item is not None else self.taken_item)
        for item in self._unanswered.values():
            item.sent = item.id <= self._repeated_upto and self._in_session
            if not item.sent:
                self._waiting.append(item)

    def add(self, payload: P, size: int, deadline: float) -> int:
        """Enters an item and returns its id."""
        self._last_id += 1
        item = self._unanswered[self._last_id] = Item(self._last_id, payload, size, deadline)
        self._waiting.append(item)
        return item.id

    def next_to_send(self, max_items: int, max_bytes: int) -> list[Item[P]]:
        """Items to be sent now, as far as the server has room for them: one of any size, or several up to a bound."""
        items: list[Item[P]] = []
        size = 0
        while self._waiting and self._has_room() and len(items) < max_items:
            item = self._waiting[0]
            size += item.size
            if items and size > max_bytes:
                break
            self._waiting.popleft()
            if item.id in self._unanswered:
                item.sent = True
                self._owed += 1
                items.append(item)
        return items

    def receive(self, number: int, result: R) -> bool:
        """Enters a result that the call brought; False if it is no news: it had been received before."""
        self._count_arrival(number)
        news = self._is_news(number)
        if news:
            self._unanswered.pop(number, None)
            self._keep(number, result)
            self.applied_item = max(self.applied_item, number if self._in_session else 0)
        if self._acknowledges:
            self._arrived.append(number)
            self._count_taken()
        return news

    def has_all_repeated(self) -> None:
        """The server has sent again all that it kept: results that did not come had been acknowledged before."""
        if self._came_upto < self._repeated_upto:
            self._owed -= self._repeated_upto - self._came_upto
            self._came_upto = self._repeated_upto

    def take(self) -> R:
        """The oldest result, which is the caller's from now on. There must be one."""
        number, result = self._results.popleft()
        self._untaken.discard(number)
        self.taken_item = number
        self._count_taken()
        return result

    def acknowledgement(self, *, idle: bool = False) -> int | None:
        """How many results of this call to acknowledge by now; None if that can wait.

        It cannot when half the window hangs on it, when an item waits for room, or when there is nothing else to do.
        """
        if self.behind and (idle or 2 * self.behind >= self.window or (self._waiting and not self._has_room())):
            self._acknowledged = self._taken
            return self._acknowledged
        return None

    def first_expiry(self, *, ordered: bool) -> float | None:
        """When the next item can be given up without a call: at its deadline, and of an ordered stream only the first.

        None if there is none, and in a session, whose items only the server may settle.
        """
        if self._in_session:
            return None
        if not ordered:
            return self.first_deadline
        return next((item.deadline for item in self._unanswered.values()), None)

    def expired(self, now: float, *, ordered: bool) -> list[int]:
        """The items that can be given up now; see `first_expiry`."""
        late: list[int] = []
        for item in self._unanswered.values() if not self._in_session else ():
            if item.deadline <= now:
                late.append(item.id)
            elif ordered:
                break
        return late

    def sent(self) -> list[int]:
        """Unanswered items that were sent on the call that there is, or was."""
        return [item.id for item in self._unanswered.values() if item.sent]

    def settle(self, number: int, result: R) -> None:
        """Gives an unanswered item a result that did not come from the server."""
        del self._unanswered[number]
        self._keep(number, result)

    def _has_room(self) -> bool:
        unacknowledged = len(self._arrived) + self.behind
        return self._owed + unacknowledged < self.window

    def _is_news(self, number: int) -> bool:
        if number in self._unanswered:
            return self._unanswered[number].sent
        if self.taken_item < number <= self._inherited_upto and number not in self._untaken:
            return self._in_session
        return False

    def _count_arrival(self, number: int) -> None:
        """Ids of a session may have gaps: what was owed is an upper bound until the next one shows."""
        if number > self._repeated_upto:
            self.has_all_repeated()
        if self._came_upto < number <= self._repeated_upto:
            self._owed -= number - self._came_upto
            self._came_upto = number
        elif number in self._unanswered and self._unanswered[number].sent:
            self._owed -= 1

    def _keep(self, number: int, result: R) -> None:
        self._results.append((number, result))
        self._untaken.add(number)

    def _count_taken(self) -> None:
        while self._arrived and self._arrived[0] not in self._untaken:
            self._arrived.popleft()
            self._taken += 1
