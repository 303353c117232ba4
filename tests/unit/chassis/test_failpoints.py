"""Failpoints act when and where they were told to, and nowhere else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferway_chassis import failpoints

PROGRAM = """
import sys
from pathlib import Path
from inferway_chassis.durable_file import replace_durably
for number in range(3):
    replace_durably(Path(sys.argv[1]), b"%d" % number)
"""


def write_three_times(path: Path, armed: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), failpoints.VARIABLE: armed}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_nothing_is_armed_without_the_variable() -> None:
    """No test and no release may stand on one by chance."""
    assert failpoints.ARMED == {}


def test_a_process_that_dies_before_the_rename_leaves_the_content_of_before(tmp_path: Path) -> None:
    """That is what makes a snapshot on disk worth starting from."""
    ended = write_three_times(tmp_path / "file", "durable-file.written=kill@2")

    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"0"


def test_an_armed_process_says_so(tmp_path: Path) -> None:
    """Whoever forgot one in an environment must find it in the first line of the log."""
    ended = write_three_times(tmp_path / "file", "durable-file.written=kill@4")

    assert ended.returncode == 0
    assert "will end or stop at durable-file.written" in ended.stderr


@pytest.mark.parametrize(
    "text", ["durable-file.written", "no.such.place=kill", "link.answer=explode", "link.answer=kill@0"]
)
def test_what_is_no_failpoint_is_refused(text: str) -> None:
    """A misspelt one would make a test of a crash pass without any."""
    with pytest.raises(ValueError, match="INFERWAY_FAILPOINTS"):
        failpoints.parsed(text)
