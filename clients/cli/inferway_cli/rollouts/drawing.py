"""Line charts over time as inline SVG. Pure: numbers in, markup out; nothing is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, log10

from inferway_cli.console import escaped

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 240, 58, 18, 34, 58
COLOURS = ("#3d5a98", "#c44536", "#0b6e4f", "#b8860b", "#7b4f9d", "#4a4a4a", "#2a9dae", "#a05a2c")
"""The first is the stable version's wherever arms are compared, the second the candidate's."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve."""

    name: str
    points: Sequence[tuple[float, float]]
    """Seconds since the beginning, ascending, and values."""
    dashed: bool = False
    colour: str = ""
    """Empty: the next of COLOURS."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves on the same axes."""

    title: str
    lines: Sequence[Line]
    unit: str = ""
    """Written behind the numbers of the upright axis."""
    most: float | None = None
    """Where the upright axis ends, if not at the highest value; what is above is drawn there."""
    level: tuple[float, str] | None = None
    """A value that is marked, and how it is called."""
    stepped: bool = False
    """Values hold until the next one, in place of lines between them."""

    def svg(self) -> str:
        """The markup; a sentence in place of curves if there are no values."""
        body = "".join(self._drawn()) if any(line.points for line in self.lines) else _text(LEFT, 80, "no figures yet")
        height = HEIGHT + 14 * max(0, len(self.lines) - 2)
        return (
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(escaped(self.title))}">'
            f"{_text(LEFT, 18, self.title, bold=True)}{body}</svg>"
        )

    def _drawn(self) -> Iterator[str]:
        yield from self._grid()
        if self.level is not None:
            value, name = self.level
            yield _rule(LEFT, self._up(value), WIDTH - RIGHT, self._up(value), "#222222", dashed=True)
            yield _text(WIDTH - RIGHT, self._up(value) - 4, name, anchor="end")
        for number, line in enumerate(self.lines):
            colour = line.colour or COLOURS[number % len(COLOURS)]
            yield self._curve(line, colour)
            y = HEIGHT - 20 + 14 * number
            yield _rule(LEFT, y, LEFT + 18, y, colour, dashed=line.dashed, width=2)
            yield _text(LEFT + 24, y + 4, line.name)

    def _grid(self) -> Iterator[str]:
        for value in ticks(self._top):
            yield _rule(LEFT, self._up(value), WIDTH - RIGHT, self._up(value), "#e2e2e2")
            yield _text(LEFT - 6, self._up(value) + 4, f"{value:g}{self.unit}", anchor="end")
        for at in ticks(self._longest):
            yield _text(self._across(at), HEIGHT - BOTTOM + 16, f"{at:g} s", anchor="middle")

    def _curve(self, line: Line, colour: str) -> str:
        places = [(self._across(at), self._up(value)) for at, value in line.points]
        if self.stepped:
            corners = [[(x, y), (next_x, y)] for (x, y), (next_x, _) in pairwise(places)]
            places = [place for corner in corners for place in corner] + places[-1:]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
        return f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'

    @property
    def _top(self) -> float:
        values = [value for line in self.lines for _, value in line.points]
        return self.most or max([*values, *([self.level[0]] if self.level else [])], default=0) * 1.05 or 1.0

    @property
    def _longest(self) -> float:
        return max((at for line in self.lines for at, _ in line.points), default=0) or 1.0

    def _across(self, at: float) -> float:
        return LEFT + at / self._longest * (WIDTH - LEFT - RIGHT)

    def _up(self, value: float) -> float:
        clipped = min(max(value, 0.0), self._top)
        return HEIGHT - BOTTOM - clipped / self._top * (HEIGHT - BOTTOM - TOP)


def ticks(limit: float) -> list[float]:
    """Round numbers from 0 to `limit`, which is above 0: three to six of them."""
    magnitude = 10 ** floor(log10(limit / 4))
    step = next(nice * magnitude for nice in (1, 2, 2.5, 5, 10) if nice * magnitude >= limit / 5)
    return [float(f"{number * step:.6g}") for number in range(int(limit / step * 1.000001) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(escaped(text))}</text>'


def _rule(x: float, y: float, to_x: float, to_y: float, colour: str, *, dashed: bool = False, width: int = 1) -> str:
    dashes = ' stroke-dasharray="5 3"' if dashed else ""
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashes}/>'
