"""Whatever happens to a dispatcher, in whatever order, each flight ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from inferway.errors import InferwayError, ModelFailed, RunnerCrashed
from inferway_gateway.lane import Flight, Lane
from inferway_gateway.roster import Breaker
from tests.unit.gateway.bench import Bench
from tests.unit.gateway.builders import envelope


class Story:
    """A dispatcher to which anything may happen, in any order."""

    def __init__(self) -> None:
        self.bench = Bench(max_items=5)
        self.flights: list[Flight] = []
        self.lanes: list[Lane] = []
        self.refused = 0

    def open(self, number: int) -> None:
        self.lanes.append(self.bench.open_lane(number))

    def submit(self, number: int) -> None:
        try:
            rows, deadline = 1 + number % 3, self.bench.now + 10.0
            flight = self.bench.dispatcher.submit(envelope(rows=rows, deadline=deadline))
            self.flights.append(flight)
            self.check_trust(flight)
        except InferwayError:
            self.refused += 1

    def check_trust(self, flight: Flight) -> None:
        """Nobody is given work who is ejected, unless that is so of most."""
        [(_, pool)] = self.bench.dispatcher.pools()
        ejected = flight.member is not None and flight.member.breaker is Breaker.OPEN
        assert not ejected or pool.roster.panic

    def write(self, number: int) -> None:
        for one in self.lanes[number : number + 1]:
            one.take_frame()

    def lose(self, number: int) -> None:
        for one in self.lanes[number : number + 1]:
            self.bench.dispatcher.lost(one)

    def answer(self, number: int) -> None:
        for flight in self._bound()[number : number + 1]:
            self.bench.answer(flight)

    def crash(self, number: int) -> None:
        for flight in self._bound()[number : number + 1]:
            self.bench.fail(flight, RunnerCrashed("gone"))

    def fail(self, number: int) -> None:
        for flight in self._bound()[number : number + 1]:
            self.bench.fail(flight, ModelFailed("broken"))

    def silence(self, number: int) -> None:
        for one in self.lanes[number : number + 1]:
            self.bench.dispatcher.fell_silent(one.worker)

    def speak(self, number: int) -> None:
        for one in self.lanes[number : number + 1]:
            self.bench.dispatcher.spoke_again(one.worker)

    def wait(self, number: int) -> None:
        self.bench.now += number / 2

    def expire(self, number: int) -> None:
        for timer in self.bench.loop.timers[number : number + 1]:
            timer.fire()

    def abandon(self, number: int) -> None:
        for flight in self.flights[number : number + 1]:
            self.bench.dispatcher.abandon(flight)

    def end(self) -> None:
        """Every link goes, and every deadline passes."""
        for one in self.lanes:
            self.bench.dispatcher.lost(one)
        for timer in self.bench.loop.timers:
            timer.fire()

    def _bound(self) -> list[Flight]:
        return [flight for flight in self.flights if flight.lane is not None]


ACTIONS = [
    *(Story.open, Story.submit, Story.write, Story.lose, Story.answer, Story.crash, Story.fail),
    *(Story.silence, Story.speak, Story.wait, Story.expire, Story.abandon),
]


@settings(max_examples=200, deadline=None)
@given(events=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), max_size=60))
def test_every_flight_ends_once_and_leaves_nothing_behind(events: list[tuple[Callable[..., None], int]]) -> None:
    """Lost requests and leaked rows are the bugs that only production finds."""

    async def play() -> None:
        story = Story()
        for action, number in events:
            action(story, number)
        story.end()

        assert all(flight.result.done() for flight in story.flights)
        assert all(
            flight.result.cancelled() or flight.result.exception() or flight.result.result() for flight in story.flights
        )
        assert sum(story.bench.codes().values()) == len(story.flights) + story.refused
        assert all((len(one), one.rows, one.worker.rows, one.worker.large_calls) == (0, 0, 0, 0) for one in story.lanes)
        assert all(len(pool.queue) == 0 for _, pool in story.bench.dispatcher.pools())

    asyncio.run(play())
