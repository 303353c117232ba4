"""A trace as a tree of hops.

A batch serves many requests: its span is in the trace of the first and links to each of them. In the traces of the
others it is shown, with all below it, under the span that it links to. (Those link back to the batch; they began
before it, so they are not taken for a part of it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from inferway_cli.traces.record import Span

_Key = tuple[str, str]


@dataclass(slots=True)
class Hop:
    """A span and what it caused, by start."""

    span: Span
    children: list[Hop] = field(default_factory=list)


def build(trace_id: str, spans: Iterable[Span]) -> list[Hop]:
    """Returns the first hops of a trace; `spans` may hold those of other traces, of which the linked ones are kept."""
    hops = {(span.trace_id, span.span_id): Hop(span) for span in sorted(spans, key=lambda span: span.start_ns)}
    roots: list[Hop] = []
    for hop in hops.values():
        parent = _parent(trace_id, hop.span, hops)
        if parent is not None:
            hops[parent].children.append(hop)
        elif hop.span.trace_id == trace_id:
            roots.append(hop)
    return roots


def flatten(roots: Iterable[Hop]) -> Iterator[Span]:
    """Every span of a tree, parents first."""
    for hop in roots:
        yield hop.span
        yield from flatten(hop.children)


def _parent(trace_id: str, span: Span, hops: dict[_Key, Hop]) -> _Key | None:
    if span.trace_id != trace_id:
        for link in span.links:
            linked = hops.get((link.trace_id, link.span_id))
            if link.trace_id == trace_id and linked is not None and linked.span.start_ns <= span.start_ns:
                return link.trace_id, link.span_id
    parent = (span.trace_id, span.parent_id)
    return parent if parent in hops and span.parent_id != span.span_id else None
