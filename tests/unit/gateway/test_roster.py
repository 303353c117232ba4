"""Who is ejected, for how long, and who never is: a roster under any history of failures, and its single rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferway_gateway.roster import (
    BUCKET_SECONDS,
    EJECTION_SECONDS,
    FORGIVEN_SECONDS,
    JITTER,
    LEAST_REQUESTS,
    LEAST_WEIGHT,
    LOCAL_IN_A_ROW,
    LONGEST_EJECTION_SECONDS,
    REMOTE_IN_A_ROW,
    SLOW_START_SECONDS,
    Breaker,
    Member,
    Place,
    Roster,
)

BACK_SECONDS = 70.0
"""The longest that a healthy worker may have to wait, whatever was held against it."""


class Crew(Roster[int]):
    """A roster of so many workers, all there since long ago."""

    def __init__(self, size: int, seed: int = 0) -> None:
        super().__init__(random.Random(seed).random)
        for number in range(size):
            self.join(number, -SLOW_START_SECONDS)

    def look(self, now: float) -> list[Place[int]]:
        """A review while all are equally quick."""
        return self.review(now, lambda _: 100.0)

    def breakers(self) -> list[Breaker]:
        """By number."""
        return [self.members[number].breaker for number in sorted(self.members)]

    def fail(self, number: int, times: int, now: float = 0.0) -> bool:
        """So many failures in a row; whether the last one was one too many."""
        return [self.failed(self.members[number], now) for _ in range(times)][-1]


def test_five_failures_in_a_row_eject_and_four_do_not() -> None:
    """One bad answer is chance; five in a row while others answer are not."""
    crew = Crew(2)
    early = crew.fail(0, REMOTE_IN_A_ROW - 1)

    assert not early
    assert crew.fail(0, 1)
    assert [place.key for place in crew.look(0.0)] == [1]


def test_an_answer_begins_the_count_anew() -> None:
    """In a row means in a row."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW - 1)
    for _ in range(100):
        crew.members[0].succeeded()

    assert not crew.fail(0, REMOTE_IN_A_ROW - 1)


def test_half_of_many_failed_ejects_though_never_in_a_row() -> None:
    """A worker that fails every other request is as bad as none."""
    crew = Crew(2)
    ejected = []
    for _ in range(LEAST_REQUESTS // 2):
        crew.members[0].succeeded()
        ejected.append(crew.failed(crew.members[0], 0.0))

    assert ejected == [*[False] * (LEAST_REQUESTS // 2 - 1), True]


def test_what_fails_everywhere_is_nobodys_fault() -> None:
    """A model that rejects its input must not cost the fleet half of its workers."""
    crew = Crew(4)
    ejected = [crew.failed(crew.members[number], 0.0) for _ in range(50) for number in range(1, 4)]
    everywhere = crew.fail(0, 50)

    assert sum(ejected) <= 1  # the first to get there, before the others had failed as often
    assert not everywhere


def test_failures_long_ago_do_not_count() -> None:
    """Two buckets later they are forgotten."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW - 1)
    crew.members[0].succeeded()
    before = crew.members[0].counts()
    crew.look(BUCKET_SECONDS)
    crew.look(2 * BUCKET_SECONDS)

    assert before == (4, 5)
    assert crew.members[0].counts() == (0, 0)


def test_a_worker_that_goes_away_twice_in_a_row_is_not_trusted_when_it_is_back() -> None:
    """A crash loop: each time it says READY, and each time requests are lost."""
    crew = Crew(2)
    for now in (0.0, 1.0):
        crew.leave(0, now, failed=True)
        crew.join(0, now)

    assert LOCAL_IN_A_ROW == 2
    assert [place.key for place in crew.look(1.0)] == [1]


def test_a_worker_that_is_restarted_on_purpose_is_trusted() -> None:
    """A rolling restart drains; nothing failed."""
    crew = Crew(2)
    for _ in range(5):
        crew.leave(0, 0.0, failed=False)
        crew.join(0, 0.0)

    assert [place.key for place in crew.look(0.0)] == [0, 1]


def test_after_its_time_one_request_tries_it_and_an_answer_brings_it_back_slowly() -> None:
    """Half open: not everybody shall find out that it is still broken."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW)
    over = EJECTION_SECONDS * (1.0 + JITTER)
    to_be_tried = crew.look(over)
    crew.members[0].trial = "a request"
    meanwhile = crew.look(over)
    crew.tried(crew.members[0], over, passed=True)

    assert [(place.key, place.cost) for place in to_be_tried] == [(1, 1.0), (0, 0.0)]
    assert [place.key for place in meanwhile] == [1]
    assert {place.key: place.cost for place in crew.look(over)} == {0: 1 / LEAST_WEIGHT, 1: 1.0}


def test_a_failed_trial_ejects_for_longer_up_to_a_minute() -> None:
    """Who stays broken is asked less and less often, and still every minute."""
    crew, member, now, lengths = Crew(2), Member(), 0.0, []
    member = crew.members[0]
    crew.fail(0, REMOTE_IN_A_ROW)
    for _ in range(20):
        lengths.append(member.open_until - now)
        now = member.open_until
        crew.look(now)
        crew.tried(member, now, passed=False)

    assert lengths[:3] == pytest.approx([5.0, 10.0, 15.0], rel=JITTER)
    assert max(lengths) <= LONGEST_EJECTION_SECONDS * (1.0 + JITTER) < BACK_SECONDS


def test_a_trial_that_says_nothing_is_repeated() -> None:
    """Its caller went away: neither good nor bad."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW)
    crew.look(10.0)
    crew.members[0].trial = "a request"
    crew.tried(crew.members[0], 10.0, passed=None)

    assert [place.key for place in crew.look(10.0)] == [1, 0]


def test_good_conduct_is_rewarded() -> None:
    """An ejection last week must not lengthen one today."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW)
    crew.look(10.0)
    crew.tried(crew.members[0], 10.0, passed=True)
    streak = crew.members[0].streak
    crew.look(10.0 + FORGIVEN_SECONDS)

    assert (streak, crew.members[0].streak) == (1, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_never_more_than_half_are_ejected(size: int) -> None:
    """Counted with the one that is about to go: of three, one; of one, none."""
    crew = Crew(size)
    for number in range(size):
        crew.fail(number, REMOTE_IN_A_ROW)

    assert sum(breaker is Breaker.OPEN for breaker in crew.breakers()) <= size // 2
    assert len(crew.look(0.0)) >= (size + 1) // 2


def test_when_the_good_ones_leave_the_ejected_ones_are_used() -> None:
    """Panic: a doubtful answer is better than none."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW)
    before = (crew.panic, [place.key for place in crew.look(0.0)])
    crew.leave(1, 0.0, failed=True)

    assert before == (False, [1])
    assert [place.key for place in crew.look(0.0)] == [0]
    assert crew.panic


def test_a_panic_is_over_with_the_pardon_of_who_has_sat_its_time_out() -> None:
    """What is said of this look must hold of it, not of the one before."""
    crew = Crew(2)
    crew.fail(0, REMOTE_IN_A_ROW)
    crew.leave(1, 0.0, failed=False)
    crew.look(0.0)
    before = crew.panic
    crew.look(EJECTION_SECONDS * (1 + JITTER))

    assert before
    assert not crew.panic
    assert crew.breakers() == [Breaker.CLOSED, Breaker.CLOSED]


def test_a_new_worker_takes_its_share_slowly_and_a_lone_one_at_once() -> None:
    """Frameworks compile and allocate at their first requests; but somebody has to answer."""
    crew = Crew(1)
    crew.join(1, 0.0)
    costs = [{place.key: place.cost for place in crew.look(now)}[1] for now in (0.0, 5.0, SLOW_START_SECONDS)]
    crew.leave(0, 0.0, failed=False)

    assert costs == [10.0, 2.0, 1.0]
    assert [place.key for place in crew.look(0.0)] == [1]


def test_rows_cost_more_at_a_slower_worker() -> None:
    """Half as quick, so half as much for the same wait."""
    crew = Crew(2)

    assert [place.cost for place in crew.review(0.0, lambda number: 100.0 / (number + 1))] == [1.0, 2.0]
    assert [place.cost for place in crew.review(0.0, lambda number: 100.0 * number)] == [1.0, 1.0]


class AnyHistory(RuleBasedStateMachine):
    """Up to fifty workers that fail, answer, vanish and return in any order."""

    @initialize(size=st.integers(1, 50), seed=st.integers(0, 9))
    def begin(self, size: int, seed: int) -> None:
        self.now, self.crew = 0.0, Crew(size, seed)
        self.places = self.crew.look(0.0)

    def member(self, number: int) -> tuple[int, Member]:
        key = number % len(self.crew.members)
        return key, self.crew.members[key]

    @rule(number=st.integers(0, 49), times=st.integers(1, 30))
    def fail(self, number: int, times: int) -> None:
        key, member = self.member(number)
        if member.present:
            for _ in range(times):
                if self.crew.failed(member, self.now):
                    self.check_ejection(key)

    @rule(number=st.integers(0, 49), times=st.integers(1, 30))
    def answer(self, number: int, times: int) -> None:
        _, member = self.member(number)
        for _ in range(times):
            member.succeeded()

    @rule(number=st.integers(0, 49), failed=st.booleans())
    def leave(self, number: int, failed: bool) -> None:
        key, member = self.member(number)
        if member.present:
            before = member.breaker
            self.crew.leave(key, self.now, failed=failed)
            if member.breaker is not before:
                self.check_ejection(key)

    @rule(number=st.integers(0, 49))
    def join(self, number: int) -> None:
        key, member = self.member(number)
        if not member.present:
            self.crew.join(key, self.now)

    @precondition(lambda self: any(place.cost == 0.0 for place in self.places))
    @rule(passed=st.sampled_from([True, False, None]))
    def try_one(self, passed: bool | None) -> None:
        place = next(place for place in self.places if place.cost == 0.0)
        place.member.trial = "a request"
        assert place.key not in [other.key for other in self.crew.look(self.now)]
        self.crew.tried(place.member, self.now, passed=passed)

    @rule(seconds=st.floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def only_the_trusted_are_used_but_in_panic(self) -> None:
        self.places = self.crew.look(self.now)
        present = [member for member in self.crew.members.values() if member.present]
        closed = [member for member in present if member.breaker is Breaker.CLOSED]
        assert self.crew.panic is (2 * len(closed) < len(present))
        assert {id(place.member) for place in self.places} <= {id(member) for member in present}
        assert bool(self.places) is bool(present)
        if not self.crew.panic:
            assert all(place.member.breaker is not Breaker.OPEN for place in self.places)

    def check_ejection(self, key: int) -> None:
        """Somebody was just ejected: at most half are now, and it was not the last one that was there."""
        known = [
            member
            for number, member in self.crew.members.items()
            if member.present or member.breaker is not Breaker.CLOSED or number == key
        ]
        ejected = [member for member in known if member.breaker is not Breaker.CLOSED]
        assert len(known) > 1
        assert 2 * len(ejected) <= len(known)

    def teardown(self) -> None:
        """Whoever was ejected, and answers from now on, is back in time."""
        if not hasattr(self, "crew"):
            return
        end = self.now + BACK_SECONDS
        while self.now < end:
            self.now += 1.0
            for place in self.crew.look(self.now):
                if place.cost == 0.0:
                    self.crew.tried(place.member, self.now, passed=True)
        assert all(member.breaker is Breaker.CLOSED for member in self.crew.members.values() if member.present)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
