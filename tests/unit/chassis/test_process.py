"""A service process from start to exit, as its operator sees it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVICE = """
from contextlib import asynccontextmanager
from inferway_chassis.process import main
from inferway_chassis.server import Server
from inferway_chassis.settings import ServiceSettings
from pydantic_settings import SettingsConfigDict

class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="INFERWAY_SAMPLE_")

@asynccontextmanager
async def running(settings, process):
    server = Server(settings, process)
    await server.start()
    yield server

raise SystemExit(main(Settings, running))
"""


@contextmanager
def start(tmp_path: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    environment = {**os.environ, **{f"INFERWAY_SAMPLE_{key}": value for key, value in settings.items()}}
    with subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def process(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    settings = getattr(request, "param", {"DRAIN_SECONDS": "0"})
    with start(tmp_path, **settings) as process:
        yield process


def wait_listening(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "listening" in line:
            return
    raise AssertionError("it never listened")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_zero(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Orchestrators take any other status for a crash."""
    wait_listening(process)
    process.send_signal(number)

    assert process.wait(10) == 0


@pytest.mark.parametrize("process", [{"DRAIN_SECONDS": "60"}], indirect=True)
def test_a_second_signal_ends_it_at_once(process: subprocess.Popen[str]) -> None:
    """Whoever presses Ctrl-C twice means it."""
    wait_listening(process)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "draining" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 1


def test_print_config_shows_every_setting_with_its_meaning_and_value(tmp_path: Path) -> None:
    """What holds is what is shown, whatever it came from."""
    file = tmp_path / "settings.toml"
    file.write_text('log_level = "error"\ndrain_seconds = 7\n')
    with start(tmp_path, "--print-config", CONFIG_FILE=str(file), DRAIN_SECONDS="9") as process:
        output = process.communicate(timeout=20)[0]

    assert re.search(r"^# .*SIGTERM.*\nINFERWAY_SAMPLE_DRAIN_SECONDS=9.0$", output, re.MULTILINE)
    assert "INFERWAY_SAMPLE_LOG_LEVEL=error" in output


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DRAIN_SECONDS": "soon"}, "INFERWAY_SAMPLE_DRAIN_SECONDS"),
        ({"GRPC_ADDRESS": "nowhere"}, "host:port"),
        ({"CONFIG_FILE": "missing.toml"}, "missing.toml"),
        ({"GRPC_ADDRESS": "0.0.0.0:0"}, "INSECURE"),
    ],
)
def test_unusable_settings_exit_two_and_name_the_culprit(tmp_path: Path, settings: dict[str, str], told: str) -> None:
    """One line for a person, no stack trace."""
    with start(tmp_path, **settings) as process:
        error = process.communicate(timeout=20)[1]

    assert process.returncode == 2
    assert told in error
    assert "Traceback" not in error
