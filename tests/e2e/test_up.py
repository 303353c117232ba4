"""`inferway up` as somebody runs it who has never seen it, in a process group of its own, like a terminal's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.testbed.ports import free_port_offset
from tests.testbed.processes import ServiceProcess

pytestmark = [pytest.mark.alone, pytest.mark.tensorflow, pytest.mark.slow]

SERVING = re.compile(r"^serving on ([\d.:]+)")


class Up:
    """A running `inferway up` and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], offset: int, data_dir: Path) -> None:
        self.process, self.offset, self.data_dir, self.output = process, offset, data_dir, ""

    def wait_serving(self) -> str:
        """Reads until it serves; returns everything printed so far."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if SERVING.match(line):
                return self.output
        raise AssertionError(self.output)

    def interrupt(self) -> tuple[int, float]:
        """Ctrl-C, which reaches the whole group; returns exit status and seconds."""
        started = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        rest, _ = self.process.communicate(timeout=30)
        self.output += rest
        return self.process.returncode, time.monotonic() - started

    def child(self, module: str) -> psutil.Process:
        """The child that runs `module`."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if module in " ".join(child.cmdline()) and "tether" not in " ".join(child.cmdline()):
                return child
        raise AssertionError(f"no child runs {module}")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `inferway` command against this stack."""
        environment = {
            **os.environ,
            "INFERWAY_GATEWAY": f"127.0.0.1:{8001 + self.offset}",
            "INFERWAY_REGISTRY": f"127.0.0.1:{8010 + self.offset}",
        }
        command = [sys.executable, "-m", "inferway_cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)


@contextmanager
def up(data_dir: Path, offset: int, *arguments: str) -> Iterator[Up]:
    command = [sys.executable, "-m", "inferway_cli", "up", "--data-dir", str(data_dir), "--port-offset", str(offset)]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield Up(process, offset, data_dir)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(data_dir: Path) -> Iterator[Up]:
    """The first start on an empty directory; ended by Ctrl-C."""
    with up(data_dir, free_port_offset()) as first:
        first.wait_serving()
        yield first


def test_the_first_start_trains_serves_and_explains(running: Up) -> None:
    """One command, and a real model answers, with figures, a trace and lines to copy."""
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+) by calls, ([\d.]+)", running.output)[0]]

    assert min(accuracies) >= 0.95
    for part in ("p50", "p95", "p99", "images/s", "gateway.queue", "runner.compute", "grpcurl -plaintext", "/metrics"):
        assert part in running.output


def test_every_command_works_beside_it(running: Up, saved_models: Path, tmp_path: Path) -> None:
    """The commands of the README, in the order in which somebody tries them."""
    model = str(saved_models / "tiny")
    for arguments in (
        ("version",),
        ("status",),
        ("models",),
        ("model", "digits"),
        ("predict", "digits"),
        ("predict", "digits", "--stream"),
        ("push", "second", model, "--alias", "champion", "--wait"),
        ("predict", "second", "--version", "champion"),
        ("push", "second", model, "--wait"),
        ("alias", "second", "champion", "2"),
        ("load", "digits", "--seconds", "1", "--rate", "50"),
        ("load", "digits", "--seconds", "1", "--stream"),
        ("unload", "second", "--version", "1"),
        ("delete", "second", "--yes"),
    ):
        done = running.command(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)


def test_tables_come_as_json_too(running: Up) -> None:
    """Scripts read them."""
    for arguments in (("models",), ("model", "digits"), ("status",), ("version",)):
        json.loads(running.command(*arguments, "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("predict", "nothing"), 1, "nothing"),
        (("model", "nothing"), 1, "nothing"),
        (("push", "x", "/nowhere"), 1, "/nowhere"),
        (("predict", "digits", "--gateway", "127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("predikt",), 2, "predikt"),
        (("push", "x"), 2, "PATH"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    running: Up, arguments: tuple[str, ...], status: int, told: str
) -> None:
    """No stack trace ever reaches a user."""
    done = running.command(*arguments)

    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_worker_and_registry_are_restarted(running: Up, tmp_path: Path) -> None:
    """`kill -9` of a child is mended without anybody's help; the model is there again."""
    target = f"127.0.0.1:{8020 + running.offset}"
    for module in ("inferway_inference", "inferway_registry"):
        running.child(module).send_signal(signal.SIGKILL)
    ServiceProcess("inferway_inference", target, {}, tmp_path / "none", running.process).wait_serving("model/digits@1")  # type: ignore[arg-type]
    done = running.command("predict", "digits")

    assert done.returncode == 0, done.stderr


def test_a_second_stack_is_told_which_port_is_taken(running: Up, tmp_path: Path) -> None:
    """Plainly, and with the option that helps."""
    with up(tmp_path, running.offset) as second:
        output, _ = second.process.communicate(timeout=30)

    assert second.process.returncode == 1
    assert re.search(r"\d+.*(taken|in use)", output), output
    assert "--port-offset" in output or "-port" in output


def test_ctrl_c_drains_and_ends_in_time_and_a_second_start_is_quick_and_keeps_its_data(
    running: Up, data_dir: Path
) -> None:
    """Runs last, because it ends the first stack and starts again on the same directory."""
    status, seconds = running.interrupt()
    assert (status, seconds < 8) == (0, True), running.output
    started = time.monotonic()
    with up(data_dir, free_port_offset()) as again:
        output = again.wait_serving()
        elapsed = time.monotonic() - started
        assert again.interrupt()[0] == 0

    assert "epoch" not in output
    assert "models/digits/versions/2" not in output
    assert elapsed < 15 + 15 * (os.environ.get("CI") == "true"), output
