"""What `inferway up` stands on: ports, data directory, logs, and children that are kept alive and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import typer

from inferway_cli.console import CommandError
from inferway_cli.data_directory import DataDirectory
from inferway_cli.health import until_serving
from inferway_cli.stack.child import Child
from inferway_cli.stack.log_file import LogFile
from inferway_cli.stack.plan import ProcessPlan, plan_stack
from inferway_cli.stack.ports import MAX_WORKERS, Claim, Ports, check_free, check_usable

SERVICE = "tests.unit.cli.fake_service"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_named_with_its_purpose_and_its_option(taken: int):
    """grpcio would share it silently, and half the requests would go to the other stack."""
    with pytest.raises(CommandError, match=rf"port {taken} \(gateway gRPC, --grpc-port\) is taken.*--port-offset"):
        check_free([Claim(taken, "gateway gRPC", "--grpc-port")])


def test_ports_that_collide_or_do_not_exist_are_named():
    """Options can be wrong as well."""
    ports = Ports(grpc=9999, http=9999).shifted(60_000)
    with pytest.raises(typer.BadParameter, match=r"--http-port\) is no port"):
        check_usable(ports.claims(1))
    with pytest.raises(typer.BadParameter, match=r"--b\) is wanted twice"):
        check_usable([Claim(9999, "a", "--a"), Claim(9999, "b", "--b")])


def test_the_default_ports_of_the_largest_stack_do_not_collide():
    """Worker ports and their metrics ports are ten apart."""
    ports = [claim.port for claim in Ports().claims(MAX_WORKERS)]
    assert len(set(ports)) == len(ports)
    assert {8000, 8001, 8002, 8010, 8011, 8020, 8030} <= set(ports)


def test_every_process_gets_its_ports_data_and_the_trace_receiver(tmp_path: Path):
    """Settings go by environment, with each service's prefix."""
    registry, first, second, gateway = plan_stack(Ports(), 2, DataDirectory(tmp_path), "127.0.0.1:4317")
    assert registry.environment["INFERWAY_REGISTRY_GRPC_ADDRESS"] == "127.0.0.1:8010"
    assert second.environment["INFERWAY_INFERENCE_GRPC_ADDRESS"] == "127.0.0.1:8021"
    assert first.environment["INFERWAY_INFERENCE_DATA_DIR"] != second.environment["INFERWAY_INFERENCE_DATA_DIR"]
    assert gateway.environment["INFERWAY_GATEWAY_HTTP_ADDRESS"] == "127.0.0.1:8000"
    assert gateway.environment["INFERWAY_GATEWAY_REGISTRY_TARGET"] == registry.target
    assert gateway.environment["INFERWAY_GATEWAY_OTLP_ENDPOINT"] == "127.0.0.1:4317"


def test_two_stacks_do_not_share_a_data_directory(tmp_path: Path):
    """They would write each other's database; the message names the process that holds it."""
    data = DataDirectory(tmp_path)
    with data.locked(), pytest.raises(CommandError, match=rf"process {os.getpid()}.*--data-dir"), data.locked():
        pytest.fail("shared")
    with data.locked():
        pass


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path):
    """With the path at fault."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="--data-dir"), DataDirectory(tmp_path / "file").locked():
        pytest.fail("made")


def test_a_log_begins_anew_when_it_is_full(tmp_path: Path):
    """A process that complains for weeks does not fill the disk."""
    log = LogFile(tmp_path / "gateway.log", max_bytes=100)
    for number in range(20):
        log.write(f"line {number} of twenty\n\n".encode())
    log.close()
    assert log.last_line == "line 19 of twenty"
    assert (tmp_path / "gateway.log").stat().st_size < 150
    assert (tmp_path / "gateway.log.1").stat().st_size < 150


class Told:
    """What the children told the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, line: str) -> None:
        """Keeps a line."""
        self.lines.append(line)
        self._changed.set()

    async def until(self, text: str) -> None:
        """Returns when a line has `text`."""
        async with asyncio.timeout(20):
            while not any(text in line for line in self.lines):
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def told() -> Told:
    """Nothing yet."""
    return Told()


@pytest.fixture
def address() -> str:
    """A free address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
async def child(tmp_path: Path, told: Told, address: str) -> AsyncIterator[Child]:
    """A child that was not started yet, and is ended after the test."""
    log = LogFile(tmp_path / "service.log")
    child = Child(ProcessPlan("service", SERVICE, address, {"FAKE_ADDRESS": address}), log, told)
    yield child
    await child.stop(5)
    log.close()


async def test_a_child_that_dies_is_started_again(child: Child, told: Told):
    """`kill -9` is an event, not the end."""
    await child.start()
    await child.until_serving()
    first = child.pid
    assert first is not None
    watching = asyncio.create_task(child.supervise())
    os.kill(first, signal.SIGKILL)
    await told.until("service serves again")
    assert any("ended by SIGKILL" in line for line in told.lines)
    assert child.pid != first
    await until_serving(child.plan.target)
    watching.cancel()


async def test_a_child_that_cannot_start_says_why(tmp_path: Path, told: Told, address: str):
    """The last line of its log, and where the log is."""
    log = LogFile(tmp_path / "service.log")
    child = Child(ProcessPlan("service", SERVICE, address, {"FAKE_ADDRESS": address, "FAKE_FAILS": "1"}), log, told)
    await child.start()
    with pytest.raises(CommandError, match=r"ended with status 1 while starting: no room on the disk .*service\.log"):
        await child.until_serving()
    log.close()


async def test_a_child_that_does_not_end_is_killed(tmp_path: Path, told: Told, address: str):
    """Ctrl-C is kept within its time."""
    log = LogFile(tmp_path / "service.log")
    environment = {"FAKE_ADDRESS": address, "FAKE_STUBBORN": "1"}
    child = Child(ProcessPlan("service", SERVICE, address, environment), log, told)
    await child.start()
    await child.until_serving()
    await child.stop(0.2)
    assert child.pid is None
    assert told.lines == ["service did not end within 0.2 s and was killed"]
    log.close()


async def test_a_child_has_a_session_of_its_own(child: Child):
    """Ctrl-C in the terminal must reach the supervisor alone, which ends the children in order."""
    await child.start()
    await child.until_serving()
    assert child.pid is not None
    assert os.getsid(child.pid) != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of other systems does not tell")
async def test_a_child_ends_when_its_parent_is_killed(address: str):
    """`kill -9` of `inferway up` leaves no processes that hold its ports."""
    program = (
        "import asyncio, os, sys\n"
        "async def main():\n"
        f"    command = [sys.executable, '-m', 'inferway_cli.stack.tether', str(os.getpid()), {SERVICE!r}]\n"
        "    child = await asyncio.create_subprocess_exec(*command, start_new_session=True)\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env={**os.environ, "FAKE_ADDRESS": address},
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await asyncio.wait_for(parent.stdout.readline(), 10)))
    await asyncio.wait_for(until_serving(address), 20)
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(child.wait, 10)
