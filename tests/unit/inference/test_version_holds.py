"""What the streams of gateways need, by link."""

from __future__ import annotations

import math

from inferway_inference.version_holds import LOST_SECONDS, VersionHolds

V1, V2 = "models/m/versions/1", "models/m/versions/2"
NOW = 100.0


def test_a_version_is_needed_while_any_link_needs_it() -> None:
    """Streams of one gateway must not end because those of another one did."""
    holds = VersionHolds()
    holds.replace("a", frozenset({V1, V2}))
    holds.replace("b", frozenset({V1}))
    holds.replace("a", frozenset({V2}))
    by_another = holds.needed_until(V1)
    holds.replace("b", frozenset())

    assert (by_another, holds.needed_until(V1), holds.needed_until(V2)) == (math.inf, 0.0, math.inf)


def test_what_a_lost_link_needed_is_needed_a_little_longer() -> None:
    """Its clients go on by another gateway, or by the same one once it has started again."""
    holds = VersionHolds()
    holds.replace("a", frozenset({V1, V2}))
    holds.lost("a", {V1, V2}, NOW)
    left = holds.needed_until(V1), holds.needed_until(V2)
    holds.replace("b", frozenset({V1}))

    assert left == (NOW + LOST_SECONDS, NOW + LOST_SECONDS)
    assert (holds.needed_until(V1), holds.needed_until(V2)) == (math.inf, NOW + LOST_SECONDS)


def test_what_is_not_in_the_books_or_not_needed_any_more_is_forgotten() -> None:
    """Links that come and go with ever new names would fill the memory."""
    holds = VersionHolds()
    holds.replace("a", frozenset({V1, V2}))
    holds.lost("a", {V2}, NOW)
    unknown = holds.needed_until(V1)
    holds.lost("one that held nothing", {V2}, NOW + LOST_SECONDS)

    assert (unknown, holds.needed_until(V2)) == (0.0, 0.0)
