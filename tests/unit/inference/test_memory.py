"""What fits into a worker, by the system's own figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferway.errors import DoesNotFit
from inferway_inference.memory import MIB, OTHER_RUNTIME_BYTES, MemoryBudget, MemoryLimits
from inferway_inference.versions import Artifact, Manifest, VersionSpec


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A machine with 1,000 MiB available, and no container."""
    (tmp_path / "proc" / "self" / "task").mkdir(parents=True)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {1000 * 1024} kB\n")
    (tmp_path / "proc" / "self" / "statm").write_text(f"0 {100 * MIB // 4096} 0\n")
    return tmp_path


def budget(system: Path, limit: int = 0, reserve: int = 0) -> MemoryBudget:
    """Of a worker on that machine."""
    return MemoryBudget(MemoryLimits(limit, reserve), system / "proc", system / "cgroup")


def spec(size: int = 0, memory: int = 0, digest: str = "d") -> VersionSpec:
    """A version of one file."""
    manifest = Manifest(digest, (Artifact("model", size, ""),))
    return VersionSpec("models/m/versions/1", "fake", manifest, (), 0, memory_bytes=memory)


def test_the_reserve_is_not_given_away(system: Path):
    """Requests need memory, too."""
    assert budget(system, reserve=100 * MIB).free_bytes() == 900 * MIB


def test_a_container_has_what_its_group_has(system: Path):
    """MemAvailable is the host's; cached files do not count against the limit."""
    cgroup = system / "cgroup"
    (cgroup / "memory.max").write_text(f"{500 * MIB}\n")
    (cgroup / "memory.current").write_text(f"{300 * MIB}\n")
    (cgroup / "memory.stat").write_text(f"anon 1\ninactive_file {50 * MIB}\n")
    assert budget(system).free_bytes() == 250 * MIB

    (cgroup / "memory.max").write_text("max\n")
    assert budget(system).free_bytes() == 1000 * MIB


def test_the_operators_limit_counts_what_the_worker_has(system: Path):
    """The worker and its processes together."""
    assert budget(system, limit=400 * MIB).free_bytes() == 300 * MIB


def test_a_version_that_does_not_fit_is_refused_with_the_figures(system: Path):
    """Whoever operates the worker must see how much is missing."""
    with (
        pytest.raises(DoesNotFit, match="needs about 2000 MiB, and 1000 MiB are free") as caught,
        budget(system).reserved(spec(memory=2000 * MIB)),
    ):
        pass

    assert caught.value.metadata["needed_bytes"] == str(2000 * MIB)


def test_versions_being_loaded_at_once_do_not_take_the_same_memory_twice(system: Path):
    """Each alone would fit; both would take the worker down."""
    own = budget(system)
    with own.reserved(spec(memory=600 * MIB)), pytest.raises(DoesNotFit), own.reserved(spec(memory=600 * MIB)):
        pass

    with own.reserved(spec(memory=600 * MIB)):
        assert own.free_bytes() == 400 * MIB
    assert own.free_bytes() == 1000 * MIB


def test_what_was_measured_counts_more_than_a_guess(system: Path):
    """The second load of a version knows what the first one took; what its publisher says counts most."""
    own = budget(system)
    assert own.needed_bytes(spec(size=100)) == OTHER_RUNTIME_BYTES + 200
    own.learn(spec(), 7 * MIB)

    assert own.needed_bytes(spec(size=100)) == 7 * MIB
    assert own.needed_bytes(spec(memory=5)) == 5
    assert own.needed_bytes(spec(digest="other")) == OTHER_RUNTIME_BYTES
