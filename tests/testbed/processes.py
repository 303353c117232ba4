"""Real service processes: start, wait for health, kill, freeze, end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2

START_SECONDS = 60.0
_SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(slots=True)
class ServiceProcess:
    """One service as its operator runs it: `python -m {module}` with settings in the environment."""

    module: str
    target: str
    """`host:port` of its gRPC server."""
    environment: Mapping[str, str]
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def pid(self) -> int:
        """Process id; raises if it was never started."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and returns at once."""
        assert not self.alive
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_serving(self, name: str = "", timeout_seconds: float = START_SECONDS) -> None:
        """Returns when its health says SERVING for `name`; raises with the end of its log otherwise."""
        deadline = time.monotonic() + timeout_seconds
        while (left := deadline - time.monotonic()) > 0 and self.alive:
            if _becomes_serving(self.target, name, min(left, 5.0)):
                return
        raise AssertionError(f"{self.module} does not serve {name!r}:\n{self.tail()}")

    def wait_mended(self, name: str, harm: Callable[[], object], timeout_seconds: float = START_SECONDS) -> None:
        """Returns when `name` serves again after `harm`, which makes it stop; raises with the end of its log."""
        with _watching(self.target, name, timeout_seconds) as answers:
            statuses = (answer.status for answer in answers)
            assert next(statuses) == _SERVING
            harm()
            try:
                next(status for status in statuses if status != _SERVING)
                next(status for status in statuses if status == _SERVING)
            except (grpc.RpcError, StopIteration):
                raise AssertionError(f"{self.module} does not serve {name!r} again:\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL, to this process alone, and reaps it."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        """SIGSTOP: TCP stays up, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM; `wait` tells when it has drained."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout_seconds: float = 30.0) -> int:
        """Exit status, negative for a signal."""
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    def end(self) -> None:
        """Ends it whatever its state is."""
        if not self.alive:
            return
        self.thaw()
        self.terminate()
        try:
            self.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def children(self) -> list[psutil.Process]:
        """Its descendants, such as a worker's runners."""
        return psutil.Process(self.pid).children(recursive=True)

    def cpu_seconds(self) -> float:
        """CPU time of the process and its living descendants."""
        family = [psutil.Process(self.pid), *self.children()]
        times = [process.cpu_times() for process in family]
        return sum(each.user + each.system for each in times)


def _becomes_serving(target: str, name: str, timeout_seconds: float) -> bool:
    """Follows the health of `name` for a while; connection failures end it early and are tried again by the caller."""
    with _watching(target, name, timeout_seconds) as answers:
        try:
            return any(answer.status == _SERVING for answer in answers)
        except grpc.RpcError:
            return False


@contextmanager
def _watching(target: str, name: str, timeout_seconds: float) -> Iterator[Iterator[health_pb2.HealthCheckResponse]]:
    with grpc.insecure_channel(target, options=[("grpc.initial_reconnect_backoff_ms", 50)]) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        call = watch(health_pb2.HealthCheckRequest(service=name), timeout=timeout_seconds, wait_for_ready=True)
        try:
            yield call
        finally:
            call.cancel()
