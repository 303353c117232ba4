"""The books of a stream against a model of a server: nothing is lost, doubled or out of order, whatever breaks."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferway_client.ledger import Ledger

WINDOW = 4


def opened(**options: bool) -> Ledger[str, str]:
    """A ledger of a stateless stream with four items in flight."""
    ledger: Ledger[str, str] = Ledger()
    ledger.begin_call(WINDOW, acknowledges=options.get("acknowledges", True))
    return ledger


def send(ledger: Ledger[str, str], *, max_items: int = 100, max_bytes: int = 100) -> list[int]:
    """Ids of what goes out now."""
    return [item.id for item in ledger.next_to_send(max_items, max_bytes)]


def test_items_travel_together_up_to_a_bound_of_bytes():
    """A message costs more than an item, but a large message holds up those behind it."""
    ledger = opened()
    for size in (40, 50, 20, 500):
        ledger.add("", size, 0.0)
    assert [send(ledger), send(ledger), send(ledger), send(ledger)] == [[1, 2], [3], [4], []]


def test_results_are_acknowledged_once_taken_and_not_each_alone():
    """What the caller does not have, the server must keep; and a message for each result would cost too much."""
    ledger = opened()
    for _ in range(WINDOW):
        ledger.add("", 1, 0.0)
    for number in send(ledger):
        ledger.receive(number, "")
    assert ledger.acknowledgement(idle=True) is None
    ledger.take()
    assert ledger.acknowledgement() is None
    ledger.take()
    assert ledger.acknowledgement() == 2
    ledger.take()
    assert ledger.acknowledgement() is None
    assert ledger.acknowledgement(idle=True) == 3


def test_an_acknowledgement_comes_before_the_room_runs_out():
    """The server would refuse an item that the caller believes to have room for."""
    ledger = opened()
    for _ in range(WINDOW):
        ledger.add("", 1, 0.0)
    ledger.receive(send(ledger)[0], "")
    ledger.take()
    assert ledger.add("", 1, 0.0) == 5
    assert send(ledger) == []
    assert ledger.acknowledgement() == 1
    assert send(ledger) == [5]


def test_a_server_that_wants_no_acknowledgements_gets_none():
    """Servers from before them end a stream that sends one."""
    ledger = opened(acknowledges=False)
    for _ in range(2 * WINDOW):
        ledger.add("", 1, 0.0)
        [number] = send(ledger)
        ledger.receive(number, "")
        ledger.take()
        assert ledger.acknowledgement(idle=True) is None
    assert ledger.all_sent


@pytest.mark.parametrize(("ordered", "late"), [(False, [2, 4]), (True, [])])
def test_only_what_can_be_told_in_order_is_given_up_without_a_server(ordered: bool, late: list[int]):
    """An ordered stream stays in order, also when it has bad news."""
    ledger = opened()
    for deadline in (9.0, 1.0, 9.0, 1.0):
        ledger.add("", 1, deadline)
    assert ledger.expired(2.0, ordered=ordered) == late
    assert ledger.first_expiry(ordered=ordered) == (9.0 if ordered else 1.0)
    for number in late:
        ledger.settle(number, "late")
    assert send(ledger) == [number for number in (1, 2, 3, 4) if number not in late]


def test_an_item_of_a_session_is_never_given_up_without_the_server():
    """Whether it was applied, the server alone knows."""
    ledger: Ledger[str, str] = Ledger()
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=0)
    ledger.add("", 1, 1.0)
    assert ledger.first_expiry(ordered=False) is None
    assert ledger.expired(2.0, ordered=False) == []


def test_a_session_of_another_process_goes_on_after_its_last_item():
    """Its results that nobody took come first, and its ids are not used again."""
    ledger: Ledger[str, str] = Ledger(acknowledged_item=5)
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=7)
    assert ledger.owed == 2
    assert ledger.add("", 1, 0.0) == 8
    assert [ledger.receive(number, f"result {number}") for number in (6, 7, 7)] == [True, True, False]
    assert [ledger.take(), ledger.take()] == ["result 6", "result 7"]
    assert ledger.owed == 0


def test_what_was_taken_before_it_came_again_is_acknowledged():
    """Else the server would keep it, and count it as in flight, for ever."""
    ledger: Ledger[str, str] = Ledger()
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=0)
    ledger.add("", 1, 0.0)
    assert send(ledger) == [1]
    ledger.receive(1, "")
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=1)
    ledger.take()
    assert not ledger.receive(1, "")
    assert ledger.acknowledgement(idle=True) == 1


def test_an_answer_to_what_was_not_sent_is_none():
    """A server that guesses ids does not get an item counted as answered."""
    ledger = opened()
    ledger.add("", 1, 0.0)
    assert not ledger.receive(1, "")
    assert send(ledger) == [1]
    assert ledger.receive(1, "")


def test_ids_of_a_session_may_have_gaps():
    """Another client numbered its items as it liked; what it left open is an upper bound of what is to come."""
    ledger: Ledger[str, str] = Ledger(acknowledged_item=10)
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=100)
    ledger.add("", 1, 0.0)
    assert send(ledger) == []
    assert ledger.receive(50, "")
    assert ledger.receive(100, "")
    assert ledger.owed == 0
    assert send(ledger) == [101]


def test_what_was_acknowledged_before_is_not_waited_for():
    """A caller that remembers an older result than the last one that it took can go on, and end."""
    ledger: Ledger[str, str] = Ledger(acknowledged_item=0)
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=100)
    ledger.add("", 1, 0.0)
    assert send(ledger) == []
    assert ledger.receive(99, "")
    ledger.has_all_repeated()
    assert send(ledger) == [101]
    ledger.receive(101, "")
    assert ledger.owed == 0


def test_an_answer_to_what_is_new_ends_what_comes_again():
    """The server sends first what it kept."""
    ledger: Ledger[str, str] = Ledger(acknowledged_item=98)
    ledger.begin_call(WINDOW, acknowledges=True, applied_item=100)
    ledger.add("", 1, 0.0)
    assert send(ledger) == [101]
    ledger.receive(101, "")
    assert ledger.owed == 0


class Server:
    """What a gateway knows of a session, or of a stateless stream, whose state ends with the call."""

    def __init__(self, *, session: bool) -> None:
        self.session = session
        self.applied_item = 0
        self.applications: list[int] = []
        self.kept: deque[int] = deque()
        self.resume(0)

    def resume(self, acknowledged_item: int) -> None:
        self.queue: deque[int] = deque()
        self.acknowledged = 0
        while self.kept and (self.kept[0] <= acknowledged_item or not self.session):
            self.kept.popleft()
        self.outbox: deque[int] = deque(self.kept)

    def offer(self, item: int) -> None:
        if self.session and item <= self.applied_item:
            return
        self.queue.append(item)
        assert len(self.queue) + len(self.kept) <= WINDOW, "no item is sent without room"

    def apply(self) -> None:
        item = self.queue.popleft()
        assert item > self.applied_item or not self.session
        self.applied_item = item
        self.applications.append(item)
        self.kept.append(item)
        self.outbox.append(item)

    def acknowledge(self, count: int) -> None:
        assert count > self.acknowledged
        for _ in range(count - self.acknowledged):
            self.kept.popleft()
        self.acknowledged = count


class StreamThatBreaks(RuleBasedStateMachine):
    """A caller, a ledger and a server, whose call is lost at any moment."""

    @initialize(session=st.booleans())
    def begin(self, session: bool) -> None:
        self.server = Server(session=session)
        self.ledger: Ledger[str, str] = Ledger()
        self.added: list[int] = []
        self.taken: list[int] = []
        self.open()

    def open(self) -> None:
        self.server.resume(self.ledger.taken_item)
        applied = self.server.applied_item if self.server.session else None
        self.ledger.begin_call(WINDOW, acknowledges=True, applied_item=applied)

    @precondition(lambda self: self.ledger.in_flight < WINDOW)
    @rule()
    def add(self) -> None:
        self.added.append(self.ledger.add("", 10, 0.0))

    @rule(max_items=st.integers(1, 3))
    def write(self, max_items: int) -> None:
        for item in self.ledger.next_to_send(max_items, 1000):
            self.server.offer(item.id)

    @precondition(lambda self: self.server.queue)
    @rule()
    def apply(self) -> None:
        self.server.apply()

    @precondition(lambda self: self.server.outbox)
    @rule()
    def receive(self) -> None:
        number = self.server.outbox.popleft()
        self.ledger.receive(number, str(number))

    @precondition(lambda self: self.ledger.has_result)
    @rule()
    def take(self) -> None:
        self.taken.append(int(self.ledger.take()))

    @rule(idle=st.booleans())
    def acknowledge(self, idle: bool) -> None:
        if (count := self.ledger.acknowledgement(idle=idle)) is not None:
            self.server.acknowledge(count)

    @rule()
    def lose(self) -> None:
        self.open()

    @invariant()
    def each_result_is_taken_once_and_in_order(self) -> None:
        assert self.taken == self.added[: len(self.taken)]

    @invariant()
    def each_item_of_a_session_is_applied_once_and_in_order(self) -> None:
        if self.server.session:
            assert self.server.applications == self.added[: len(self.server.applications)]

    @invariant()
    def what_is_owed_is_known(self) -> None:
        assert self.ledger.owed == len(self.server.queue) + len(self.server.outbox)

    def teardown(self) -> None:
        """Without further losses everything is answered, taken and acknowledged."""
        if not hasattr(self, "server"):
            return
        for _ in range(4 * WINDOW):
            self.write(3)
            while self.server.queue:
                self.apply()
            while self.server.outbox:
                self.receive()
            while self.ledger.has_result:
                self.take()
            self.acknowledge(idle=True)
        assert self.taken == self.added
        assert self.ledger.all_sent
        assert not self.server.kept


TestStreamThatBreaks = StreamThatBreaks.TestCase
TestStreamThatBreaks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
