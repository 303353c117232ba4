"""The locks: in step with the dependency lists, free of addresses, and light where they must be."""

import pytest

from tools import lock


def test_locks_are_in_step_with_the_dependency_lists():
    """A lock that lacks a requirement breaks `make setup` on a fresh machine only."""
    wanted = lock.requirements()
    shared = lock.pins((lock.LOCKS / "dev.txt").read_text())

    found = [problem for name, lines in wanted.items() for problem in lock.problems(name, lines, shared)]

    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "--index" + "-url https" + "://example.org/packages",
        "--find" + "-links wheels",
        "numpy @ https" + "://example.org/numpy.whl",
        "numpy>=2",
        "-e .",
    ],
)
def test_a_line_that_is_not_a_hashed_pin_is_found(line: str):
    """An address or a range in a lock makes installs differ from machine to machine."""
    assert [line] == lock.foreign_lines(f"six==1.17.0 \\\n    --hash=sha256:{'0' * 64}\n{line}\n")


def test_dev_holds_every_pin_of_runtime():
    """Tests must run on what users run on."""
    runtime, dev = (lock.pins((lock.LOCKS / f"{name}.txt").read_text()) for name in ("runtime", "dev"))

    assert runtime.items() <= dev.items()


def test_workers_with_and_without_gpus_have_the_same_packages_but_for_cuda():
    """A package that only one of the images has is missed on the other's machines."""
    plain, gpu = ({lock.name_of(line) for line in lock.requirements()[name]} for name in ("inference", "inference-gpu"))

    assert {name.removesuffix("-gpu") for name in gpu} == plain


@pytest.mark.parametrize("name", ["client", "gateway", "registry"])
def test_only_workers_install_tensorflow(name: str):
    """Half a gigabyte and seconds of start-up that a client, a gateway and a registry never use."""
    heavy = {"ai-edge-litert", "keras", "onnxruntime", "scikit-learn", "scipy", "tensorflow", "tensorflow-cpu"}

    assert not heavy & lock.pins((lock.LOCKS / f"{name}.txt").read_text()).keys()


def test_a_client_installs_four_packages_and_what_they_need():
    """A thin client is the promise; each package more is a conflict in somebody's environment."""
    installed = lock.pins((lock.LOCKS / "client.txt").read_text()).keys()

    assert installed == {"googleapis-common-protos", "grpcio", "numpy", "protobuf", "typing-extensions"}
