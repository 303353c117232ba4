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

pytestmark = [pytest.mark.alone, pytest.mark.tensorflow, pytest.mark.slow]

FLEET = [sys.executable, "-m", "examples.fleet", "--vehicles", "12"]
START_SECONDS = 90


def test_nothing_is_lost_doubled_swapped_or_wrong_whatever_is_pressed(eta: EtaModel):
    """A rollout, a killed worker and a cut network in half a minute; NumPy checks every answer."""
    arguments = ["--model", str(eta.directory), "--workers", "2", "--seconds", "25", "--press", "r@2,k@12,n@17"]
    done = subprocess.run(
        [*FLEET, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=START_SECONDS + 60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    answered, sent = re.findall(r"answered ([\d,]+) of ([\d,]+), lost 0, doubled 0, out of order 0", done.stdout)[0]
    assert answered == sent
    assert int(answered.replace(",", "")) > 12 * 25
    for happened in ("version 2 is ready", "kill -9 worker-", "is back", "network cut for 3 s: longest gap "):
        assert happened in done.stdout, done.stdout


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
