"""Holds calls back at their source while a server refuses most of them: a refusal costs it nearly as much as an answer.

The client-side throttle of Google's SRE book (chapter 21, "Handling Overload"): of the requests of the last minute, as
many as `max(0, (requests - K * accepted) / (requests + 1))` are refused here, by chance. K is 2 for what is critical:
the server then sees twice what it accepts. It is 1.1 for what can be shed. Three things are our own: a request counts
once it is known what became of it, lest a restart that refuses one while many are slow looks like overload; a few
requests prove nothing; and a server that has refused nothing for some seconds is not overloaded any more, whatever the
last minute was like. Without that, a client would need most of a minute to come back.
"""

from __future__ import annotations

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inferway.errors import Cancelled, DeadlineExceeded, InferwayError, Overloaded, Throttled, Unavailable
from inferway_client.recent import Clock, Recent

WINDOW_SECONDS = 60
CALM_SECONDS = 3.0
"""Nothing is held back once there was no refusal for so long."""
MAX_SHARE = 0.9
"""Some calls always go, to find out whether the server accepts them again."""
LEAST_SECONDS = 1.0
"""A call goes in any case if none went for so long."""
LEAST_REQUESTS = 20
"""In the window, before any is held back."""
MAX_ENDPOINTS = 256


class Throttle:
    """Of one endpoint."""

    def __init__(self, endpoint: str, multiplier: float, clock: Clock, chance: Callable[[], float]) -> None:
        """`multiplier` is K; `chance` returns numbers in [0, 1)."""
        self._endpoint, self._multiplier, self._clock, self._chance = endpoint, multiplier, clock, chance
        self._requests, self._accepted = Recent(WINDOW_SECONDS, clock), Recent(WINDOW_SECONDS, clock)
        self._sent_at = self._refused_at = -math.inf

    @property
    def share(self) -> float:
        """Of the calls that are held back now."""
        requests = self._requests.total
        if requests < LEAST_REQUESTS or self._clock() - self._refused_at > CALM_SECONDS:
            return 0.0
        excess = requests - self._multiplier * self._accepted.total
        return min(MAX_SHARE, max(0.0, excess / (requests + 1)))

    def admit(self) -> None:
        """A call wants to go; raises Throttled if it may not."""
        share = self.share
        if self._clock() - self._sent_at < LEAST_SECONDS and self._chance() < share:
            self._requests.add()
            raise Throttled(
                f"not sent: {self._endpoint} refused most of the last minute's calls, so {share:.0%} are held back",
                endpoint=self._endpoint,
            )

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Counts an attempt by what the server makes of it: the errors raised inside."""
        self._sent_at = self._clock()
        try:
            yield
        except (DeadlineExceeded, Cancelled):
            raise  # who knows
        except (Overloaded, Unavailable) as error:
            if not _never_left(error):
                self._refuse()
            raise
        except InferwayError:
            self._accept()
            raise
        self._accept()

    def _accept(self) -> None:
        self._requests.add()
        self._accepted.add()

    def _refuse(self) -> None:
        self._requests.add()
        self._refused_at = self._clock()


def _never_left(error: InferwayError) -> bool:
    """Whether gRPC itself refused the message, which is too large at any load; a server names a reason of its own."""
    return type(error) is Overloaded and not error.retryable


class Throttles:
    """One for each endpoint that a client calls: an overloaded model does not hold back calls of others."""

    def __init__(
        self, multiplier: float, *, clock: Clock = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        """As for Throttle."""
        self._multiplier, self._clock, self._chance = multiplier, clock, chance
        self._known: OrderedDict[str, Throttle] = OrderedDict()

    def of(self, endpoint: str) -> Throttle:
        """The throttle of one endpoint; those called least recently are forgotten."""
        throttle = self._known.pop(endpoint, None) or Throttle(endpoint, self._multiplier, self._clock, self._chance)
        self._known[endpoint] = throttle
        if len(self._known) > MAX_ENDPOINTS:
            self._known.popitem(last=False)
        return throttle
