"""Who is let in while memory runs out, and what the system says of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from inferway.errors import MemoryPressure
from inferway_chassis.memory_figures import container_memory, resident_bytes, used_share
from inferway_chassis.memory_gate import READ_SECONDS, RELIEF_SECONDS, MemoryGate, Refused
from inferway_chassis.memory_metrics import MemoryMetrics

MIB = 1024 * 1024


class Machine:
    """Memory and time as the test says."""

    def __init__(self, share: float = 0.0) -> None:
        """With a gate that holds 100 bytes."""
        self.share, self.now, self.readings, self.reliefs = share, 100.0, 0, 0
        self.kept = 0.0
        """Freed, and given back on relief."""
        self.gate = MemoryGate(100, self.read, lambda: self.now, self.relieve)

    def read(self) -> float:
        """A reading."""
        self.readings += 1
        return self.share

    def relieve(self) -> None:
        """Gives back."""
        self.reliefs += 1
        self.share, self.kept = self.share - self.kept, 0.0


def admitted(machine: Machine) -> set[object]:
    """The classes that get in, and `stream`."""
    found = set[object]()
    for criticality in (1, 2, 3, 4):
        with suppress(MemoryPressure):
            machine.gate.admit(criticality)
            found.add(criticality)
    with suppress(MemoryPressure):
        machine.gate.admit_stream()
        found.add("stream")
    return found


@pytest.mark.parametrize(
    ("share", "let_in"),
    [
        (0.84, {1, 2, 3, 4, "stream"}),
        (0.85, {1, 2, "stream"}),
        (0.91, {1, 2, "stream"}),
        (0.92, {1, 2}),
        (0.949, {1, 2}),
        (0.95, set()),
        (1.5, set()),
    ],
)
def test_the_less_critical_goes_first_and_at_last_everything(share: float, let_in: set[object]):
    """A process that is killed for its memory serves nobody."""
    assert admitted(Machine(share)) == let_in


def test_memory_is_read_ten_times_a_second_at_most():
    """Thousands of requests a second ask."""
    machine = Machine()
    for _ in range(1_000):
        machine.gate.admit(2)
    assert machine.readings == 1
    machine.share, machine.now = 0.99, machine.now + 2 * READ_SECONDS
    with pytest.raises(MemoryPressure, match="99%") as caught:
        machine.gate.admit(1)
    assert caught.value.retryable


def test_what_is_freed_and_kept_is_given_back_before_anybody_is_refused():
    """The C library keeps freed memory for later: a burst must not keep the gate shut for good."""
    machine = Machine(0.97)
    machine.kept = 0.5
    machine.gate.admit(4)
    assert machine.reliefs == 1


def test_giving_back_is_not_tried_at_every_reading():
    """It takes milliseconds of a loop that has other work."""
    machine = Machine(0.97)
    for _ in range(50):
        machine.now += READ_SECONDS
        with pytest.raises(MemoryPressure):
            machine.gate.admit(1)
    assert machine.reliefs == pytest.approx(50 * READ_SECONDS / RELIEF_SECONDS, abs=1)


def test_bytes_held_are_bounded_and_come_back():
    """Thirty requests of 20 MB at once took a gateway to 2 GB."""
    gate = Machine().gate
    gate.hold(60)
    with pytest.raises(MemoryPressure):
        gate.hold(41)
    gate.hold(40)
    gate.release(60)
    gate.release(40)
    gate.hold(1_000_000)
    assert gate.held_bytes == 1_000_000


def test_refusals_are_counted_by_what_was_refused():
    """An operator must see why callers are sent away."""
    machine = Machine(0.93)
    admitted(machine)
    machine.gate.hold(90)
    with pytest.raises(MemoryPressure):
        machine.gate.hold(20)
    assert machine.gate.refused == {Refused.SHEDDABLE: 2, Refused.STREAM: 1, Refused.BYTES: 1}
    samples = {(s.name, *s.labels.values()): s.value for m in MemoryMetrics(machine.gate).collect() for s in m.samples}
    assert samples["inferway_memory_refused_total", "sheddable"] == 2
    assert samples["inferway_memory_used_share",] == pytest.approx(0.93)
    assert samples["inferway_memory_held_bytes",] == 90


@pytest.mark.parametrize(
    ("limit", "used", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
    ids=["cgroup 2", "cgroup 1"],
)
def test_a_container_has_what_its_group_says_without_cached_files(tmp_path: Path, limit: str, used: str, cached: str):
    """Files that are only cached go when memory is needed."""
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text(f"{1000 * MIB}\n")
    (tmp_path / used).write_text(f"{700 * MIB}\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 9\n{cached} {200 * MIB}\n")
    assert container_memory(tmp_path) == (1000 * MIB, 500 * MIB)
    assert used_share(0, cgroup=tmp_path)() == 0.5


def test_without_any_limit_nothing_is_short(tmp_path: Path):
    """A machine that others fill is no reason to refuse."""
    (tmp_path / "memory.max").write_text("max\n")
    assert used_share(0, cgroup=tmp_path)() == 0.0


def test_an_own_limit_is_for_this_process_alone():
    """Its neighbours in the container have their own."""
    resident = resident_bytes()
    assert resident > MIB
    assert used_share(2 * resident)() == pytest.approx(0.5, abs=0.2)
    assert resident_bytes("no such process") == 0
