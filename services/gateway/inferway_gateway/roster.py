"""Which of a version's workers are given work, and how dear each is: outlier ejection, slow start, panic. Pure.

    CLOSED ──failures──► OPEN ──time──► HALF_OPEN ──one request answered──► CLOSED, starting slowly
                          ▲                 │
                          └──── failed ─────┘

The states are those of a circuit breaker for each worker and version. Rules and most numbers are Envoy's (gRFC A50
and A48), with times for workers that are back in seconds. Failures are *local* when a worker went away or fell silent,
and *remote* when it answered with one. A failure that all workers of a version share is nobody's fault: a worker is
ejected only if it fails much more often than the others, never if it is the last, and never more than half of all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

LOCAL_IN_A_ROW = 2
REMOTE_IN_A_ROW = 5
FAILURE_SHARE = 0.5
LEAST_REQUESTS = 20
"""A share of fewer requests says nothing."""
TIMES_THE_OTHERS = 3.0
"""How much more often than the other workers of the version an outlier fails."""
BUCKET_SECONDS = 5.0
"""Shares are taken over this bucket and the one before: over 5 to 10 seconds."""
EJECTION_SECONDS = 5.0
"""Times the ejections in a row, up to the next."""
LONGEST_EJECTION_SECONDS = 60.0
JITTER = 0.1
FORGIVEN_SECONDS = 10.0
"""After so long without ejection, one of those in a row is forgotten."""
MOST_EJECTED = 0.5
PANIC_SHARE = 0.5
"""With fewer than this part of the workers in favour, all are used: many can hardly be outliers."""
SLOW_START_SECONDS = 10.0
LEAST_WEIGHT = 0.1
"""Where slow start begins."""
REVIEW_SECONDS = 1.0


class Breaker(IntEnum):
    """See the module."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Member:
    """One worker as one version sees it. Its counters are written by whoever hears the answers."""

    __slots__ = (
        "_bad_before",
        "_good_before",
        "bad",
        "breaker",
        "ejections",
        "forgiven_at",
        "good",
        "local_in_a_row",
        "open_until",
        "present",
        "ready_at",
        "remote_in_a_row",
        "streak",
        "trial",
    )

    def __init__(self) -> None:
        """Not there yet, and nothing is held against it."""
        self.present = False
        self.breaker = Breaker.CLOSED
        self.trial: object | None = None
        """The request that is out to try it."""
        self.ready_at = self.forgiven_at = self.open_until = 0.0
        self.good = self.bad = self._good_before = self._bad_before = 0
        self.local_in_a_row = self.remote_in_a_row = 0
        self.streak = self.ejections = 0

    def succeeded(self) -> None:
        """It answered a request."""
        self.good += 1
        self.local_in_a_row = self.remote_in_a_row = 0

    def weight(self, now: float) -> float:
        """Its part of what it could take: less than 1 for some seconds after it became ready."""
        return min(1.0, max(LEAST_WEIGHT, (now - self.ready_at) / SLOW_START_SECONDS))

    def counts(self) -> tuple[int, int]:
        """Failures and requests of the last seconds."""
        bad = self.bad + self._bad_before
        return bad, bad + self.good + self._good_before

    def turn(self) -> None:
        """A new bucket begins."""
        self._good_before, self._bad_before = self.good, self.bad
        self.good = self.bad = 0


K = TypeVar("K", bound=Hashable)


class Place(NamedTuple, Generic[K]):
    """A worker that may be given work."""

    key: K
    member: Member
    cost: float
    """What a row costs there, compared with the quickest worker; 0 for one that is to be tried."""


class Roster(Generic[K]):
    """All workers that one version has or had. `random` answers between 0 and 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        """Empty."""
        self._random = random
        self._bucket_at = 0.0
        self.members: dict[K, Member] = {}
        self.panic = False
        """Ejections do not count for now."""

    def join(self, key: K, now: float) -> None:
        """`key` has the version ready from now on, and takes its share slowly."""
        member = self.members.setdefault(key, Member())
        member.present, member.ready_at = True, now

    def leave(self, key: K, now: float, *, failed: bool) -> None:
        """`key` does not have it ready any more; `failed` says that it went away unasked."""
        member = self.members[key]
        member.local_in_a_row += failed
        if member.local_in_a_row >= LOCAL_IN_A_ROW and member.breaker is not Breaker.OPEN:
            self._eject(member, now)
        member.present, member.trial = False, None

    def forget(self, key: K) -> None:
        """`key` will not come back."""
        if key in self.members and not self.members[key].present:
            del self.members[key]

    def failed(self, member: Member, now: float) -> bool:
        """A request failed there; returns whether that was one too many."""
        member.bad += 1
        member.remote_in_a_row += 1
        return member.breaker is Breaker.CLOSED and self._is_outlier(member) and self._eject(member, now)

    def tried(self, member: Member, now: float, *, passed: bool | None) -> None:
        """The request that tried `member` ended; None means without saying anything about it."""
        member.trial = None
        if passed is None:
            return
        if not passed and self._eject(member, now):
            return
        member.breaker, member.ready_at, member.forgiven_at = Breaker.CLOSED, now, now
        member.local_in_a_row = member.remote_in_a_row = 0
        member.good = member.bad = 0
        member.turn()

    def review(self, now: float, rate_of: Callable[[K], float]) -> list[Place[K]]:
        """Who may be given work from now on, until the next event and for REVIEW_SECONDS at most.

        `rate_of` tells the rows a second of a worker; 0 if nobody knows.
        """
        self._let_time_pass(now)
        present = [(key, member) for key, member in self.members.items() if member.present]
        if _is_panic(present):
            self._pardon([member for _, member in present], now)
        self.panic = _is_panic(present)
        used = present if self.panic else _closed(present)
        places = [Place(key, member, cost) for (key, member), cost in _costs(used, rate_of, now)]
        if not self.panic:
            places += [
                Place(key, member, 0.0)
                for key, member in present
                if member.breaker is Breaker.HALF_OPEN and member.trial is None
            ]
        return places

    def _pardon(self, members: list[Member], now: float) -> None:
        """In a panic all are used, so none is tried: who has sat its time out is back without a trial."""
        for member in members:
            if member.breaker is Breaker.HALF_OPEN and member.trial is None:
                self.tried(member, now, passed=True)

    def _let_time_pass(self, now: float) -> None:
        turn = now - self._bucket_at >= BUCKET_SECONDS
        for member in self.members.values():
            if turn:
                member.turn()
            if member.breaker is Breaker.OPEN and now >= member.open_until:
                member.breaker = Breaker.HALF_OPEN
            if member.streak and member.breaker is Breaker.CLOSED and now - member.forgiven_at >= FORGIVEN_SECONDS:
                member.streak, member.forgiven_at = member.streak - 1, now
        if turn:
            self._bucket_at = now

    def _is_outlier(self, member: Member) -> bool:
        bad, requests = member.counts()
        often = requests >= LEAST_REQUESTS and bad >= FAILURE_SHARE * requests
        if member.remote_in_a_row < REMOTE_IN_A_ROW and not often:
            return False
        others = [other.counts() for other in self.members.values() if other is not member and other.present]
        others_bad, others_requests = (sum(column) for column in zip(*others, strict=True)) if others else (0, 0)
        return bad * max(1, others_requests) >= TIMES_THE_OTHERS * others_bad * requests

    def _eject(self, member: Member, now: float) -> bool:
        """Ejects `member` unless that were more than may be."""
        there = [
            each
            for each in self.members.values()
            if each.present or each.breaker is not Breaker.CLOSED or each is member
        ]
        ejected = sum(each.breaker is not Breaker.CLOSED for each in there if each is not member) + 1
        if ejected > MOST_EJECTED * len(there):
            return False
        member.streak += 1
        member.ejections += 1
        seconds = min(EJECTION_SECONDS * member.streak, LONGEST_EJECTION_SECONDS)
        member.breaker = Breaker.OPEN
        member.open_until = now + seconds * (1.0 + JITTER * (2.0 * self._random() - 1.0))
        return True


def _closed(members: list[tuple[K, Member]]) -> list[tuple[K, Member]]:
    return [(key, member) for key, member in members if member.breaker is Breaker.CLOSED]


def _is_panic(present: list[tuple[K, Member]]) -> bool:
    return len(_closed(present)) < PANIC_SHARE * len(present)


def _costs(
    members: list[tuple[K, Member]], rate_of: Callable[[K], float], now: float
) -> list[tuple[tuple[K, Member], float]]:
    """What a row costs at each of `members`. All count as equally quick while one has not told its speed."""
    rates = [rate_of(key) for key, _ in members]
    known = bool(rates) and min(rates) > 0
    best = max(rates, default=0.0)
    return [
        (each, (best / rate if known else 1.0) / each[1].weight(now)) for each, rate in zip(members, rates, strict=True)
    ]
