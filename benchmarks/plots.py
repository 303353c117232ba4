"""Draws what the benchmarks measured: `python -m benchmarks.plots` reads .bench/ and writes docs/plots/.

    goodput-simulated.svg   of `make bench-goodput`: answers in time over load, beside the best fixed window
    goodput.svg             of `make bench-engine ARGS=goodput`: the same over sockets, with 95 % intervals
    throughput.svg          of `make bench-engine ARGS=throughput`: rows a second beside every way in process

A drawing whose figures are not there is left as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, KEY = 300, 230, 44, 30, 40, 16
COLOURS = ("#0b6e4f", "#c44536", "#3d5a98", "#b8860b")
TICKS = (0.3, 0.5, 1, 2, 3, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: x, y and half of the interval of y, 0 if it has none."""

    name: str
    points: Sequence[tuple[float, float, float]]


def panel(title: str, lines: Sequence[Line], most: float) -> str:
    """Curves over load, which grows by factors; y from 0 to `most`."""
    low, high = math.log(TICKS[0]), math.log(TICKS[-1])

    def across(load: float) -> float:
        return LEFT + (math.log(load) - low) / (high - low) * (WIDTH - LEFT - 12)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP)

    parts = [_text(LEFT, 16, title, bold=True)]
    for share in (step / 4 for step in range(int(most * 4) + 1)):
        parts.append(_rule(LEFT, up(share), WIDTH - 12, up(share), "#dddddd"))
        parts.append(_text(LEFT - 6, up(share) + 4, f"{share:g}", anchor="end"))
    parts += [_text(across(load), HEIGHT - BOTTOM + 16, f"{load:g}", anchor="middle") for load in TICKS]
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 6, "load, times capacity", anchor="middle"))
    for line, colour in zip(lines, COLOURS, strict=False):
        places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _ in line.points)
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, half in line.points:
            parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>')
            if half:
                parts.append(_rule(across(x), up(max(0.0, y - half)), across(x), up(min(most, y + half)), colour))
    return "".join(parts)


def bars(title: str, values: Sequence[tuple[str, float]], best: float) -> str:
    """A bar for each value, as a share of `best`."""
    parts, step = [_text(8, 16, title, bold=True)], (HEIGHT - TOP - 10) / len(values)
    for place, (name, value) in enumerate(values):
        y, share = TOP + place * step, value / best
        colour = COLOURS[0] if place == 0 else "#9aa5b1"
        parts.append(_text(96, y + step * 0.6, name, anchor="end"))
        long, high = share * (WIDTH - 150), step * 0.75
        parts.append(f'<rect x="102" y="{y:.1f}" width="{long:.1f}" height="{high:.1f}" fill="{colour}"/>')
        parts.append(_text(106 + long, y + step * 0.6, f"{share:.2f}"))
    return "".join(parts)


def drawing(panels: Sequence[str], names: Sequence[str] = ()) -> str:
    """Panels side by side, and a key of the colours below."""
    width, height = len(panels) * WIDTH, HEIGHT + KEY * len(names) + 6
    parts = [f'<g transform="translate({place * WIDTH},0)">{one}</g>' for place, one in enumerate(panels)]
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        y = HEIGHT + KEY * (place + 0.5)
        parts.append(_rule(LEFT, y, LEFT + 18, y, colour))
        parts.append(_text(LEFT + 24, y + 4, name))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = 'font-family="sans-serif" font-size="11"'
    return f'{head} {style}><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'


def simulated(results: Sequence[dict[str, Any]]) -> str:
    """Of every model the worker's scheduler, and of each load the best fixed window."""
    panels = []
    for model in dict.fromkeys(one["model"] for one in results):
        own, best = {}, dict[float, float]()
        for one in (one for one in results if one["model"] == model):
            if one["policy"] == "own":
                own[one["load"]] = one["goodput"]
            else:
                best[one["load"]] = max(best.get(one["load"], 0.0), one["goodput"])
        lines = [Line(name, [(x, y, 0.0) for x, y in sorted(of.items())]) for name, of in (("", own), ("", best))]
        panels.append(panel(model, lines, 1.25))
    return drawing(panels, ("inferway", "best fixed window"))


def measured(rows: Sequence[dict[str, Any]]) -> str:
    """Every policy over load."""
    names = list(dict.fromkeys(row["policy"] for row in rows))
    lines = [
        Line(name, [(row["load"], row["goodput"], row["interval"]) for row in rows if row["policy"] == name])
        for name in names
    ]
    return drawing([panel("answers in time, share of capacity", lines, 1.25)], names)


def throughput(rows: Sequence[dict[str, Any]]) -> str:
    """Through the worker, beside each way in process: rows in a batch x callers."""
    panels = []
    for row in rows:
        title = f"{row['model']}, requests of {row['rows']} {'row' if row['rows'] == 1 else 'rows'}"
        values = [("inferway", row["rows_per_second"]), *row["in_process"].items()]
        panels.append(bars(title, values, row["in_process"][row["best_way"]]))
    return drawing(panels)


def _text(x: float, y: float, text: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _rule(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}" stroke-width="1.5"/>'


def main() -> None:
    """Draws what there is."""
    found, folder = ROOT / ".bench", ROOT / "docs" / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    engine = json.loads((found / "engine.json").read_text()) if (found / "engine.json").exists() else {}
    if (found / "goodput.json").exists():
        (folder / "goodput-simulated.svg").write_text(simulated(json.loads((found / "goodput.json").read_text())))
    if "goodput" in engine:
        (folder / "goodput.svg").write_text(measured(engine["goodput"]))
    if "throughput" in engine:
        (folder / "throughput.svg").write_text(throughput(engine["throughput"]))


if __name__ == "__main__":
    main()
