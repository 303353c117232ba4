"""The fleet as somebody runs it from its README: every vehicle survives what the keys do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.testbed.eta import ROOT, EtaModel

pytestmark = [pytest.mark.alone, pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.timeout(240)]

VEHICLES = 12
FLEET = [sys.executable, "-m", "examples.fleet", "--vehicles", str(VEHICLES)]

PRESSED = {"version 2 is ready": b"k", "kill -9 worker-": b"n", "is back": b"q"}
"""By what has happened: what somebody presses then. The network is cut while the worker is away."""


def test_nothing_is_lost_doubled_swapped_or_wrong_whatever_is_pressed(eta: EtaModel):
    """A rollout, a killed worker and a cut network, one upon the other; NumPy checks every answer."""
    printed, status = driven(eta)

    assert status == 0, printed
    answered, sent = re.findall(r"answered ([\d,]+) of ([\d,]+), lost 0, doubled 0, out of order 0", printed)[0]
    seconds = max(float(second) for second in re.findall(r"^ *([\d.]+) s  ", printed, re.MULTILINE))
    assert answered == sent
    assert int(answered.replace(",", "")) > VEHICLES * seconds
    [gap] = re.findall(r"network cut for 3 s: longest gap ([\d.]+) s", printed)
    assert float(gap) > 2.0
    assert all(happened in printed for happened in PRESSED), printed


def driven(eta: EtaModel) -> tuple[str, int]:
    """What the example printed while it was treated as PRESSED says, and its exit status."""
    keyboard, terminal = os.openpty()
    command = [*FLEET, "--model", str(eta.directory), "--workers", "2", "--press", "r@2"]
    pipes = {"stdin": terminal, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    printed, to_press = "", dict(PRESSED)
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as fleet, os.fdopen(keyboard, "wb", 0) as keys:  # type: ignore[call-overload]
        os.close(terminal)
        try:
            for line in fleet.stdout:
                printed += line
                for happened in [one for one in to_press if one in line]:
                    keys.write(to_press.pop(happened))
            return printed, fleet.wait(30)
        finally:
            fleet.kill()


def test_its_processes_end_with_it_however_it_ends(eta: EtaModel, tmp_path: Path):
    """Also by `kill -9`: a demonstration that leaves servers behind is shown once."""
    output = tmp_path / "output"
    with (
        output.open("w") as file,
        subprocess.Popen(
            [*FLEET, "--model", str(eta.directory), "--workers", "1", "--press", "k@0.1"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},  # what it cannot tidy up any more
            stdout=subprocess.PIPE,
            stderr=file,
        ) as fleet,
    ):
        assert fleet.stdout is not None
        assert any(b"kill -9 worker-" in line for line in fleet.stdout), output.read_text()
        family = psutil.Process(fleet.pid).children(recursive=True)
        fleet.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=30)

    assert len(family) > 1  # the worker that was killed may not be back yet
    assert not alive
