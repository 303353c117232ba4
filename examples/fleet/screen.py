"""One frame: the map, a row for each vehicle, the books, what happened, the keys. Fits 80 by 24, and uses more."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text

from examples.fleet.controls import Controls
from examples.fleet.journal import Event
from examples.fleet.town_map import DESTINATION_STYLE, Mark, TownMap
from examples.fleet.vehicle import Vehicle
from examples.fleet.vehicles import Vehicles
from examples.fleet.workers import Workers, WorkerView

FIXED_LINES = 5
"""The title, the books, the workers, the keys, and the head of the table."""
EVENTS = 4
ROW_COLUMNS = 42
"""Of a vehicle's row, with the space before it."""
WAY_COLUMNS = 8
LATE_SECONDS = 1.0
"""Without an answer: from here on it shows."""
GONE_SECONDS = 5.0
COLOURS = ("cyan", "green", "magenta", "bright_blue", "bright_green", "bright_cyan", "bright_magenta")
DIM = "grey62"
HEAD = f"  {'way':<{WAY_COLUMNS}}  eta  truth  error  since  ver "


class Screen:
    """See the module; makes lines, and knows no terminal."""

    def __init__(self, vehicles: Vehicles, workers: Workers, controls: Controls) -> None:
        """Reads from these, whenever a frame is made."""
        self._vehicles, self._workers, self._controls = vehicles, workers, controls
        self._map = TownMap(vehicles.around.tracks.ground)

    def frame(self, width: int, height: int) -> Text:
        """The whole screen."""
        middle = max(4, height - FIXED_LINES - EVENTS)
        map_width = max(10, min(2 * middle, width - ROW_COLUMNS))
        drawn = self._map.lines(map_width, middle + 1, self._marks())
        rows = self._rows(width - map_width, middle)
        lines = [
            self._title(width),
            *(left.append(" ").append_text(right) for left, right in zip(drawn, rows, strict=True)),
            self._books(),
            self._fleet(),
            *self._events(),
            self._keys(),
        ]
        for line in lines:
            line.truncate(width, pad=False)
        return Text("\n").join(lines[:height])

    def _title(self, width: int) -> Text:
        around = self._vehicles.around
        now = around.clock()
        count, median, late = around.latencies.recent(now)
        rate = count / min(max(now, 1.0), 10.0)
        figures = f"{len(self._vehicles.driving)} vehicles  {rate:.0f} answers/s  p50 {_ms(median)}  p99 {_ms(late)}"
        clock = f"{int(now) // 60}:{int(now) % 60:02}"
        title = Text.assemble((" inferway fleet ", "bold reverse"), f"  {figures}")
        return title.append(clock.rjust(width - title.cell_len))

    def _marks(self) -> Iterator[Mark]:
        for vehicle in self._vehicles.driving:
            yield vehicle.trip.positions[-1], "x", DESTINATION_STYLE
        for vehicle in self._vehicles.driving:
            yield vehicle.position, vehicle.name, f"bold {_colour(vehicle)}"

    def _rows(self, width: int, height: int) -> list[Text]:
        """The head and `height` lines, in as many columns of the table as there is room for."""
        across = max(1, width // ROW_COLUMNS)
        driving, room = self._vehicles.driving, across * height
        shown = driving if len(driving) <= room else driving[: room - 1]
        cells = [_row(vehicle) for vehicle in shown]
        if len(shown) < len(driving):
            cells.append(Text(f"  and {len(driving) - len(shown)} more, in a larger window", style=DIM))
        used = max(1, math.ceil(len(cells) / height))
        head = Text(" ".join([HEAD] * used), style=DIM)
        return [head, *(Text(" ").join(cells[row::height]) for row in range(height))]

    def _books(self) -> Text:
        totals = self._vehicles.around.totals
        line = Text.assemble(" answered ", (f"{totals.answered:,}", "bold green"))
        bad = {
            "lost": totals.lost,
            "doubled": totals.doubled,
            "out of order": totals.out_of_order,
            "state wrong": totals.wrong,
        }
        for name, count in bad.items():
            line.append(f"  {name} ").append(f"{count}", style="bold red" if count else "bold green")
        return line

    def _fleet(self) -> Text:
        line = Text(" workers ")
        for view in self._workers.views:
            line.append_text(_worker(view))
        line.append(f" sessions {'migrate' if self._controls.migrates else 'finish'}", style=DIM)
        return line.append(f"   longest gap {self._vehicles.around.journal.longest_gap:.2f} s")

    def _events(self) -> list[Text]:
        recent = self._vehicles.around.journal.events[-EVENTS:]
        return [_event(event) for event in recent] + [Text("")] * (EVENTS - len(recent))

    def _keys(self) -> Text:
        line = Text(" ")
        for key, words in self._controls.legend.items():
            line.append(key, style="bold reverse").append(f" {words}  ")
        return line


def summary(vehicles: Vehicles) -> list[str]:
    """The whole run, in plain lines."""
    around, totals = vehicles.around, vehicles.around.totals
    journal, latencies = around.journal, around.latencies.all
    events = [event.line() for event in journal.events]
    times = (
        f"{around.clock():.0f} s, {totals.sessions} sessions, longest gap {journal.longest_gap:.2f} s, "
        f"latency p50 {_ms(latencies.percentile(50))}, p99 {_ms(latencies.percentile(99))}"
    )
    books = (
        f"answered {totals.answered:,} of {totals.sent:,}, lost {totals.lost}, doubled {totals.doubled}, "
        f"out of order {totals.out_of_order}, state wrong {totals.wrong}"
    )
    return [*events, times, books]


def _row(vehicle: Vehicle) -> Text:
    step, eta = vehicle.step, vehicle.predicted_minutes
    truth = vehicle.trip.minutes_left(step)
    done = round(WAY_COLUMNS * step / vehicle.trip.steps)
    told = f"{'…':>5} {truth:6.1f} {'':6}" if eta is None else f"{eta:5.1f} {truth:6.1f} {eta - truth:+6.1f}"
    return Text.assemble(
        (vehicle.name, f"bold {_colour(vehicle)}"),
        (" " + "━" * done, _colour(vehicle)),
        ("━" * (WAY_COLUMNS - done), "grey23"),
        f" {told}",
        (f" {vehicle.gap_seconds:4.1f} s", _urgency(vehicle) or DIM),
        f" {'v' + str(vehicle.version) if vehicle.version else '…':>4} ",
    )


def _colour(vehicle: Vehicle) -> str:
    return _urgency(vehicle) or COLOURS[ord(vehicle.name) % len(COLOURS)]


def _urgency(vehicle: Vehicle) -> str:
    if vehicle.gap_seconds >= GONE_SECONDS:
        return "red"
    return "yellow" if vehicle.gap_seconds >= LATE_SECONDS else ""


def _worker(view: WorkerView) -> Text:
    versions = " ".join(f"v{number}" for number in view.ready) if view.alive else "down"
    if view.alive and (view.loading or not view.ready):
        versions += "…"
    light = "green" if view.serves else "yellow" if view.alive else "red"
    return Text.assemble(("● ", light), view.name.removeprefix("worker-"), (f" {versions}  ", DIM))


def _event(event: Event) -> Text:
    return Text(f" {event.line()}", style="yellow" if event.longest_gap is not None else DIM)


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.1f} ms"
