"""A span as it is kept: what the tree needs, and no protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Link:
    """Another span that a span belongs to, such as each request in a batch."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """One hop of one trace. Ids are lower-case hex; times are nanoseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first span of a trace."""
    name: str
    service: str
    start_ns: int
    end_ns: int
    error: str = ""
    """Message of a failed span."""
    attributes: dict[str, Any] = field(default_factory=dict)
    links: tuple[Link, ...] = ()

    @property
    def seconds(self) -> float:
        """Duration."""
        return (self.end_ns - self.start_ns) / 1e9
