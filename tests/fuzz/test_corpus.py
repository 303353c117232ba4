"""What fuzzing has found interesting or broken is tried again on every run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

MAX_SECONDS = 1.0


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_of_the_corpus_breaks_or_stalls_its_target(name: str) -> None:
    """A defect that was mended stays mended; an input that takes seconds is an attack."""
    inputs = sorted((CORPUS / name).iterdir())
    slowest = 0.0
    for path in inputs:
        began = time.thread_time()
        replay(name, path)
        slowest = max(slowest, time.thread_time() - began)

    assert inputs
    assert slowest < MAX_SECONDS


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", b"\xff" * 1000, bytes(range(256)) * 4], ids=len)
def test_no_target_minds_garbage(name: str, data: bytes) -> None:
    """The shortest and the dullest inputs are those that generators forget."""
    TARGETS[name](data)


def replay(name: str, path: Path) -> None:
    """Runs one file; its name stands in the error."""
    try:
        TARGETS[name](path.read_bytes())
    except Exception as error:
        raise AssertionError(f"{name} broke on {path.name}") from error
