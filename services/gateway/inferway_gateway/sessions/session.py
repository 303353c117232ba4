"""One session as a state machine: which item is applied next, what its state is, what its client has yet to get.

    offered ─► waiting ─► in flight ─► settled ─► (committed and sent) ─► acknowledged

One item is in flight at a time. It is settled by its answer, which brings the next state, or by its error, which
leaves the state as it was. Pure: who drives it says what happened, and asks what is next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from inferway.errors import InferwayError, InvalidBatch, InvalidField, SessionStateTooLarge
from inferway_gateway.envelope import Ask
from inferway_gateway.sessions.store import Kept, SessionRecord
from inferway_gateway.state import StatePlan, state_bytes
from inferway_gateway.tensors import Tensor

MAX_STATE_BYTES = 1 << 20


class Item(NamedTuple):
    """An input of the session, or why it is none."""

    id: int
    ask: Ask | InferwayError
    due: float = 0.0
    """When its answer is worthless, on the gateway's clock."""


class Session:
    """See the module."""

    def __init__(self, record: SessionRecord) -> None:
        """Goes on from `record`."""
        self._record = record
        self._kept = deque(record.kept)
        self._resumed_at = self._offered = record.applied
        self._waiting = deque[Item]()
        self.current: Item | None = None
        """The item in flight."""

    @property
    def record(self) -> SessionRecord:
        """All that there is to go on from."""
        return replace(self._record, kept=tuple(self._kept))

    def knows(self, item_id: int) -> bool:
        """The item was settled on an earlier stream: its result was acknowledged or is kept.

        Raises InvalidField for an id that does not come after all others of this stream.
        """
        if item_id < 1:
            raise InvalidField.at("item.id", "must be 1 or more in a session")
        if item_id <= self._resumed_at:
            return True
        if item_id <= self._offered:
            raise InvalidField.at("item.id", f"{item_id} does not come after {self._offered}; ids must increase")
        return False

    def offer(self, item: Item) -> None:
        """Takes an item that it does not know."""
        self._offered = item.id
        self._waiting.append(item)

    def begin(self) -> Item | None:
        """The next item to apply; None while one is in flight, and if none waits."""
        if self.current is not None or not self._waiting:
            return None
        self.current = self._waiting.popleft()
        return self.current

    def state(self, plan: StatePlan, rows: int) -> Sequence[Tensor]:
        """For an item of so many rows.

        Raises InvalidBatch if those before it had another number of them, SessionStateTooLarge if it is the first one
        and has too many.
        """
        record = self._record
        if not record.state:
            _check_size(plan.initial_bytes(rows))  # first: rows may cost their sender much less than their state
            return plan.initial(rows)
        if rows != record.rows:
            raise InvalidBatch.at("inputs", f"the session's items have {record.rows} rows each; this one has {rows}")
        return record.state

    def check(self, state: Sequence[Tensor]) -> None:
        """Raises SessionStateTooLarge for a state that it cannot keep."""
        _check_size(state_bytes(state))

    def applied(self, state: tuple[Tensor, ...], rows: int, version: str) -> None:
        """The item in flight has its answer, by `version`, and left `state`."""
        self._settle(state=state, rows=rows, version=version)

    def failed(self) -> None:
        """The item in flight has its error. The state is what it was."""
        self._settle()

    def keep(self, item_id: int, result: bytes) -> None:
        """Keeps the result of a settled item until it is acknowledged."""
        self._kept.append(Kept(item_id, result))

    def kept(self) -> list[Kept]:
        """Results that are not acknowledged, oldest first."""
        return list(self._kept)

    def acknowledge(self, results: int) -> None:
        """The client has the oldest `results` of those that are kept."""
        for _ in range(min(results, len(self._kept))):
            self._kept.popleft()

    def acknowledge_up_to(self, item_id: int) -> None:
        """The client has every result up to that of this item."""
        while self._kept and self._kept[0].item <= item_id:
            self._kept.popleft()

    def _settle(self, **changes: Any) -> None:
        assert self.current is not None
        self._record = replace(self._record, applied=self.current.id, **changes)
        self.current = None


def _check_size(byte_count: int) -> None:
    if byte_count > MAX_STATE_BYTES:
        raise SessionStateTooLarge(
            f"the model's state takes {byte_count} bytes; a session keeps at most {MAX_STATE_BYTES}",
            limit=MAX_STATE_BYTES,
        )
