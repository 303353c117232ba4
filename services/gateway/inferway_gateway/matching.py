"""Rules that send callers to an arm by a header of theirs, whatever the weights are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Headers = Iterable[tuple[str, str | bytes]]
"""The metadata of a call; can be gone through again."""


@dataclass(frozen=True, slots=True)
class MatchRule:
    """Sends calls with a certain header to an arm."""

    header: str
    """In lower case."""
    value: str
    is_prefix: bool
    """The header's value begins with `value`; else it is that."""
    arm: str

    def matches(self, headers: Headers) -> bool:
        """Whether one of `headers` is meant."""
        return any(key == self.header and self._means(value) for key, value in headers)

    def _means(self, value: str | bytes) -> bool:
        if isinstance(value, bytes):
            return False
        return value.startswith(self.value) if self.is_prefix else value == self.value


def arm_of(rules: Iterable[MatchRule], headers: Headers) -> str:
    """The arm that the first rule which matches names; empty if none does."""
    return next((rule.arm for rule in rules if rule.matches(headers)), "")
