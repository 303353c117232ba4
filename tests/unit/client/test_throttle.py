"""When calls are held back, with time and chance under control."""

from __future__ import annotations

import random
from contextlib import ExitStack, suppress

import pytest

from inferway.errors import (
    Cancelled,
    DeadlineExceeded,
    Draining,
    InferwayError,
    InvalidField,
    Overloaded,
    QueueFull,
    Throttled,
)
from inferway_client.throttle import CALM_SECONDS, LEAST_REQUESTS, MAX_ENDPOINTS, Throttle, Throttles
from tests.unit.client.test_retries import Clock


class Server:
    """Accepts so many calls a second, and refuses the rest."""

    def __init__(self, clock: Clock, capacity: float, multiplier: float) -> None:
        """Called through a throttle."""
        self.clock, self.capacity = clock, capacity
        self.throttle = Throttle("digits", multiplier, clock, random.Random(3).random)
        self.seen = self.accepted = 0
        self._tokens = 0.0

    def called(self, rate: float, seconds: float) -> tuple[float, float]:
        """Calls seen and accepted each second, of so many at a steady rate."""
        self.seen = self.accepted = 0
        for _ in range(int(rate * seconds)):
            self.clock.now += 1 / rate
            self._tokens = min(self.capacity, self._tokens + self.capacity / rate)
            self._call()
        return self.seen / seconds, self.accepted / seconds

    def _call(self) -> None:
        with suppress(QueueFull, Throttled):
            self.throttle.admit()
            with self.throttle.sending():
                self._answer()

    def _answer(self) -> None:
        self.seen += 1
        if self._tokens < 1.0:
            raise QueueFull("full")
        self._tokens -= 1.0
        self.accepted += 1


@pytest.mark.parametrize(("multiplier", "most_seen"), [(2.0, 225), (1.1, 125)])
def test_the_server_sees_a_little_more_than_it_accepts_and_can_use_all_of_its_capacity(
    multiplier: float, most_seen: float
):
    """Ten times its capacity costs a server twice that at most, and of what can be shed a tenth more."""
    server = Server(Clock(), 100.0, multiplier)
    server.called(1000.0, 60.0)
    seen, accepted = server.called(1000.0, 30.0)
    assert seen < most_seen
    assert accepted > 85.0


def test_everything_goes_again_soon_after_the_last_refusal():
    """A minute of overload must not cost another minute."""
    server = Server(Clock(), 100.0, 1.1)
    server.called(1000.0, 60.0)
    server.called(50.0, CALM_SECONDS + 1.0)
    seen, accepted = server.called(80.0, 10.0)
    assert (seen, accepted) == (80.0, 80.0)


def test_a_call_goes_every_second_whatever_happened():
    """Who never asks never learns that the server is back."""
    clock = Clock()
    throttle = Throttle("digits", 1.1, clock, lambda: 0.0)
    fail(throttle, LEAST_REQUESTS)
    with pytest.raises(Throttled):
        throttle.admit()
    clock.now += 1.0
    throttle.admit()


def test_a_few_refusals_prove_nothing():
    """A program that starts beside its model must not be held back for that."""
    throttle = Throttle("digits", 1.1, Clock(), lambda: 0.0)
    fail(throttle, LEAST_REQUESTS - 1)
    throttle.admit()


def test_errors_of_the_request_are_answers():
    """A server that refuses nonsense is well."""
    throttle = Throttle("digits", 1.1, Clock(), lambda: 0.0)
    fail(throttle, 10 * LEAST_REQUESTS, InvalidField.at("inputs", "wrong"))
    throttle.admit()


def test_calls_on_their_way_are_not_refusals():
    """A rolling restart refuses one while fifty slow ones compute: that is no overload."""
    throttle = Throttle("digits", 1.1, Clock(), lambda: 0.0)
    with ExitStack() as on_their_way:
        for _ in range(50):
            on_their_way.enter_context(throttle.sending())
        fail(throttle, 1, Draining("restarts"))
        throttle.admit()
    fail(throttle, 1, Draining("restarts"))
    throttle.admit()


@pytest.mark.parametrize("error", [Cancelled("not wanted"), DeadlineExceeded("slow")], ids=["cancelled", "late"])
def test_calls_of_which_nothing_is_known_do_not_count(error: InferwayError):
    """A caller that gives up often would otherwise hold itself back at the first refusal."""
    throttle = Throttle("digits", 1.1, Clock(), lambda: 0.0)
    fail(throttle, 10 * LEAST_REQUESTS, error)
    fail(throttle, 1)
    throttle.admit()


def test_a_message_that_is_too_large_for_the_connection_says_nothing_of_load():
    """It never reached the server, and would not at any load; what a server refuses for good under load does count."""
    throttle = Throttle("digits", 1.1, Clock(), lambda: 0.0)
    too_large, full = Overloaded("too large"), QueueFull("full")
    too_large.retry_after_seconds = full.retry_after_seconds = None
    fail(throttle, 10 * LEAST_REQUESTS, too_large)
    throttle.admit()
    fail(throttle, 10 * LEAST_REQUESTS, full)
    with pytest.raises(Throttled):
        throttle.admit()


def test_calls_that_are_held_back_count_as_requests():
    """The share grows with what callers want, not with what is sent; otherwise it would swing."""
    throttle = Throttle("digits", 2.0, Clock(), lambda: 0.0)
    for _ in range(LEAST_REQUESTS):
        with throttle.sending():
            pass
    fail(throttle, 2 * LEAST_REQUESTS)
    before = throttle.share
    with pytest.raises(Throttled):
        throttle.admit()

    assert throttle.share > before


def test_an_overloaded_endpoint_does_not_hold_back_others():
    """They have workers of their own."""
    throttles = Throttles(2.0, clock=Clock(), chance=lambda: 0.0)
    fail(throttles.of("slow"), 10 * LEAST_REQUESTS)
    assert throttles.of("slow").share == 0.9
    throttles.of("quick").admit()


def test_endpoints_called_long_ago_are_forgotten():
    """A client that asks for a thousand names holds a bounded memory of them."""
    throttles = Throttles(2.0, clock=Clock())
    first = throttles.of("0")
    for number in range(1, MAX_ENDPOINTS):
        throttles.of(str(number))
    assert throttles.of("0") is first
    throttles.of("one more")
    assert throttles.of("0") is first
    assert throttles.of("1").share == 0.0


def fail(throttle: Throttle, times: int, error: InferwayError | None = None) -> None:
    """So many calls end with the error, which is a refusal by default."""
    for _ in range(times):
        with pytest.raises(InferwayError), throttle.sending():
            raise error or QueueFull("full")
