"""Prints a trace: one line a hop, indented by cause, with its start after the first hop and its duration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inferway_cli.traces.tree import Hop

NAME_COLUMNS = 50


def trace_lines(roots: Sequence[Hop]) -> list[str]:
    """The lines of a tree; they fit 80 columns unless a name is longer than 50."""
    began = min(hop.span.start_ns for hop in roots)
    header = f"{'hop':<{NAME_COLUMNS}}{'service':<10}{'at ms':>9}{'ms':>9}"
    return [header, *(line for hop in roots for line in _lines(hop, began, "", ""))]


def trace_dicts(roots: Sequence[Hop]) -> list[dict[str, Any]]:
    """The tree as nested dictionaries."""
    return [
        {
            "name": hop.span.name,
            "service": hop.span.service,
            "trace_id": hop.span.trace_id,
            "span_id": hop.span.span_id,
            "start_ns": hop.span.start_ns,
            "duration_ms": hop.span.seconds * 1e3,
            "error": hop.span.error or None,
            "attributes": hop.span.attributes,
            "children": trace_dicts(hop.children),
        }
        for hop in roots
    ]


def _lines(hop: Hop, began: int, branch: str, indent: str) -> Iterator[str]:
    span = hop.span
    name = f"{branch}{_short(span.name)}"
    at_ms = (span.start_ns - began) / 1e6
    service = span.service.removeprefix("inferway-")
    yield f"{name:<{NAME_COLUMNS}}{service:<10}{at_ms:>9.2f}{span.seconds * 1e3:>9.2f}".rstrip() + _failure(span.error)
    last = len(hop.children) - 1
    for index, child in enumerate(hop.children):
        corner, below = ("└─ ", "   ") if index == last else ("├─ ", "│  ")
        yield from _lines(child, began, indent + corner, indent + below)


def _short(name: str) -> str:
    """`inferway.prediction.v1.PredictionService/Predict` as `PredictionService/Predict`."""
    service, slash, method = name.partition("/")
    return f"{service.rpartition('.')[2]}/{method}" if slash and "Service" in service else name


def _failure(error: str) -> str:
    return f"  failed: {error}" if error else ""
