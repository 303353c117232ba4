"""What people see: whole lines at the size of their terminal, and keys that leave the terminal as it was."""

from __future__ import annotations

import asyncio
import os
import pty
import string
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from examples.eta.drives import Town
from examples.fleet.audit import Totals
from examples.fleet.controls import Controls
from examples.fleet.journal import Journal
from examples.fleet.keys import keys_pressed
from examples.fleet.latencies import Latencies
from examples.fleet.model import ArrivalModel
from examples.fleet.options import Press, parse
from examples.fleet.screen import Screen
from examples.fleet.stack import JoinedStack
from examples.fleet.tracks import SimulatedTracks
from examples.fleet.vehicle import Surroundings, Vehicle
from examples.fleet.vehicles import Vehicles
from examples.fleet.workers import Workers, WorkerView
from inferway_cli.registry import Registry
from inferway_client import Client

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def tracks() -> SimulatedTracks:
    return SimulatedTracks(Town.build())


@pytest.fixture
def journal() -> Journal:
    return Journal(lambda: 3.0, lambda event: None)


@pytest.fixture
def controls(journal: Journal, tmp_path: Path) -> Controls:
    stack, model = JoinedStack([NOBODY], NOBODY), ArrivalModel(tmp_path)
    registry = Registry(NOBODY)
    workers = Workers(registry)
    return Controls(stack, model, registry, workers, [], journal, fit=lambda change: None, leave=lambda: None)


@pytest.fixture
def screen(tracks: SimulatedTracks, journal: Journal, controls: Controls) -> Screen:
    """Of 24 vehicles, three workers, one of them down, and more events than there is room for."""
    around = Surroundings(Client(NOBODY), tracks, {}, Totals(), Latencies(), journal, lambda: 3.0, 0.25)
    vehicles = Vehicles(around)
    vehicles.driving += [Vehicle(number, string.ascii_letters[number], around) for number in range(24)]
    workers = Workers(Registry(NOBODY))
    workers.views = [WorkerView(f"worker-{number}", number != 1, (1, 2), loading=False) for number in range(3)]
    for number in range(9):
        journal.event(f"event {number} with a long story that does not fit into eighty columns, not even nearly")
    return Screen(vehicles, workers, controls)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (81, 25), (132, 43), (250, 70), (40, 12)])
def test_a_frame_fits_its_terminal(screen: Screen, width: int, height: int):
    """One column too many and every frame would scroll."""
    lines = screen.frame(width, height).plain.split("\n")

    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


def test_a_small_terminal_has_it_all(screen: Screen):
    """80 by 24 is what is left when somebody shows this to others."""
    frame = screen.frame(80, 24).plain
    lines = frame.split("\n")

    assert len(lines) == 24
    assert "24 vehicles" in lines[0]
    assert lines[0].endswith("  0:03")
    assert "answered 0  lost 0  doubled 0  out of order 0  state wrong 0" in frame
    assert "● 1 down" in frame
    assert "longest gap 0.00 s" in frame
    assert "and 10 more" in frame
    assert "event 8" in lines[-2]
    assert lines[-1].rstrip().endswith("q quit")


def test_a_large_terminal_shows_every_vehicle(screen: Screen):
    """In several columns if need be."""
    rows = screen.frame(200, 30).plain

    assert "more, in a larger window" not in rows
    assert all(f" {name} ━" in rows for name in string.ascii_letters[:24])


async def test_keys_come_one_by_one_and_the_terminal_is_left_as_it_was():
    """Without Return and without an echo; and somebody has to work in that terminal afterwards."""
    ours, theirs = pty.openpty()
    pressed: asyncio.Queue[str] = asyncio.Queue()
    before = termios.tcgetattr(theirs)
    with os.fdopen(theirs, closefd=True) as stdin:
        with keys_pressed(stdin, pressed.put_nowait):
            os.write(ours, b"kq")
            async with asyncio.timeout(5):
                assert [await pressed.get(), await pressed.get()] == ["k", "q"]
            assert not termios.tcgetattr(theirs)[3] & termios.ICANON
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


async def test_without_a_terminal_no_key_is_read(tmp_path: Path):
    """In a pipe, `k` is somebody's data."""
    file = tmp_path / "stdin"
    file.write_text("k")
    with file.open() as stdin, keys_pressed(stdin, pytest.fail):
        await asyncio.sleep(0)
        assert stdin.read() == "k"


async def test_a_key_that_can_do_nothing_says_why(controls: Controls, journal: Journal):
    """Of a stack that somebody else has started, no process is killed."""
    controls.press("k")
    controls.press("x")
    await controls.settled()

    assert [event.text for event in journal.events] == [
        "k: this stack was not started here; kill a worker of it yourself"
    ]


def test_presses_are_read_in_the_order_of_their_time():
    """What a script asks for."""
    assert parse(["--press", "n@10,k@5.5"]).presses == [Press("k", 5.5), Press("n", 10.0)]


@pytest.mark.parametrize(
    "arguments", [["--press", "x@5"], ["--press", "k@-1"], ["--vehicles", "0"], ["--seconds", "x"]]
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    """Before anything is started."""
    with pytest.raises(SystemExit) as refused:
        parse(arguments)

    assert refused.value.code == 2
    assert f"error: argument {arguments[0]}: " in capsys.readouterr().err
