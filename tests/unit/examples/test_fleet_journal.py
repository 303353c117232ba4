"""What an event has cost must not be put down to another one."""

from __future__ import annotations

from examples.fleet.journal import Event, Journal


class Day:
    """A journal with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Event] = []
        self.journal = Journal(lambda: self.now, self.told.append)

    def at(self, now: float) -> Journal:
        self.now = now
        return self.journal


def costs(journal: Journal) -> list[float | None]:
    return [event.longest_gap for event in journal.events]


def test_a_gap_belongs_to_what_happened_meanwhile():
    """Not to the crash before it, which cost nothing."""
    day = Day()
    day.at(5).event("crash")
    day.at(8).event("cut")
    day.at(11).gap(3.5)

    assert costs(day.journal) == [0.0, 3.5]


def test_a_gap_that_begins_later_belongs_to_the_last_event():
    """As when a worker is missing for a while; not for ever, though."""
    day = Day()
    day.at(5).event("crash")
    day.at(9).gap(1.0)
    day.at(40).gap(2.0)

    assert costs(day.journal) == [1.0]
    assert day.journal.longest_gap == 2.0


def test_remarks_cost_nothing():
    """Somebody toggled a policy: no vehicle feels that."""
    day = Day()
    day.at(5).event("crash")
    day.at(6).remark("policy")
    day.at(6.5).gap(1.0)

    assert costs(day.journal) == [1.0, None]
    assert [event.text for event in day.told] == ["crash", "policy"]


def test_the_same_again_at_once_is_counted():
    """Two dozen sessions that are lost at once must not push everything else off the screen."""
    day = Day()
    for _ in range(24):
        day.at(5).event("a session is lost")
    day.at(9).event("a session is lost")

    assert len(day.journal.events) == 2
    assert day.journal.events[0].line() == "   5.0 s  a session is lost, 24 times: longest gap 0.00 s"
