"""Which versions the streams of gateways still need, though nothing may route to them any more. Pure.

Each link says it anew whenever it changes. What a link needed when it ended is needed a little longer: its gateway, or
another one where the clients go on, will say so soon if that is still true.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable

LOST_SECONDS = 30.0
"""How much longer: a gateway has started again by then, and clients have found another one."""


class VersionHolds:
    """What all links need. Links are any hashable objects; versions are names."""

    def __init__(self) -> None:
        """Nothing is needed."""
        self._of: dict[Hashable, frozenset[str]] = {}
        self._lost: dict[str, float] = {}
        """Until when versions are needed that links needed when they ended."""

    def replace(self, link: Hashable, versions: frozenset[str]) -> None:
        """`link` needs these versions, and no others any more."""
        self._of[link] = versions

    def lost(self, link: Hashable, known: Collection[str], now: float) -> None:
        """`link` is gone. Of what it needed only what is in `known` is remembered, which bounds the memory."""
        left = self._of.pop(link, frozenset()).intersection(known)
        kept = {version: until for version, until in self._lost.items() if until > now}
        self._lost = kept | dict.fromkeys(left, now + LOST_SECONDS)

    def needed_until(self, version: str) -> float:
        """When `version` stops being needed, as far as anybody knows: infinite while a link needs it, 0 if none did."""
        if any(version in versions for versions in self._of.values()):
            return math.inf
        return self._lost.get(version, 0.0)
