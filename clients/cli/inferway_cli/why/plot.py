"""Column charts for a terminal. Pure: numbers in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from inferway_cli.serving_words import figure

T = TypeVar("T")

MAX_COLUMNS = 9
"""More do not fit 80 characters beside the axis."""
_COLUMN_WIDTH = 7
_AXIS_WIDTH = 11
_HEIGHT = 4
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def chart(title: str, values: Sequence[float]) -> list[str]:
    """A title and columns that stand on zero, as wide as those of `figures`."""
    top = max(values)
    labels = [figure(top), *[""] * (_HEIGHT - 2), "0"]
    bars = [f"{label:>{_AXIS_WIDTH}} │{row}".rstrip() for label, row in zip(labels, _rows(values, top), strict=True)]
    return [f"    {title}", *bars]


def figures(label: str, values: Iterable[str]) -> str:
    """A line of labels or numbers under the columns."""
    return f"{label:>{_AXIS_WIDTH}}  {''.join(f'{value:^{_COLUMN_WIDTH}}' for value in values)}".rstrip()


def thinned(points: Sequence[T], most: int = MAX_COLUMNS) -> list[T]:
    """At most so many of the points, which must be two or more: the first, the last, and evenly chosen ones between."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[round(index * last / (most - 1))] for index in range(most)]


def _rows(values: Sequence[float], top: float) -> list[str]:
    """From the top down."""
    eighths = [max(1, round(value / top * _HEIGHT * 8)) if value > 0 else 0 for value in values]
    return [
        "".join(f"{_EIGHTHS[min(8, max(0, filled - 8 * level))] * 3:^{_COLUMN_WIDTH}}" for filled in eighths)
        for level in reversed(range(_HEIGHT))
    ]
