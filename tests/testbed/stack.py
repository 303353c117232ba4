"""A whole inferway of real processes on free ports, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.testbed.ports import free_ports
from tests.testbed.processes import ServiceProcess


@dataclass(slots=True)
class Stack:
    """Registry, workers and gateway. To put a fault proxy between two, `redirect` the dialling one before it starts."""

    directory: Path
    workers_count: int = 1
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further environment by service: `gateway`, `registry`, `inference`."""
    registry: ServiceProcess = field(init=False)
    gateway: ServiceProcess = field(init=False)
    workers: list[ServiceProcess] = field(init=False)
    http_target: str = field(init=False)
    gateway_metrics: str = field(init=False)

    def __post_init__(self) -> None:
        """Plans addresses; nothing runs yet."""
        ports = free_ports(4 + self.workers_count)
        registry, gateway, http, metrics, *workers = [f"127.0.0.1:{port}" for port in ports]
        self.http_target, self.gateway_metrics = http, metrics
        self.registry = self._process("registry", "registry", registry, {})
        self.gateway = self._process(
            "gateway",
            "gateway",
            gateway,
            {"HTTP_ADDRESS": http, "METRICS_ADDRESS": metrics, "REGISTRY_TARGET": registry},
        )
        self.workers = [
            self._process("inference", f"worker-{n}", target, {"REGISTRY_TARGET": registry, "WORKER": f"w{n}"})
            for n, target in enumerate(workers)
        ]

    def start(self) -> Self:
        """Starts everything and waits until it serves."""
        for process in self.processes:
            process.start()
        for process in self.processes:
            process.wait_serving()
        return self

    @property
    def processes(self) -> list[ServiceProcess]:
        """All of them, in the order of their start."""
        return [self.registry, *self.workers, self.gateway]

    def another_gateway(self, name: str, **environment: str) -> ServiceProcess:
        """One more gateway before the same workers, not started."""
        [port] = free_ports(1)
        own = {"HTTP_ADDRESS": "", "REGISTRY_TARGET": self.registry.target, **environment}
        return self._process("gateway", name, f"127.0.0.1:{port}", own)

    def redirect(self, process: ServiceProcess, target: str) -> None:
        """Lets a gateway or a worker dial `target` instead of the registry."""
        prefix = process.module.upper()
        process.environment = {**process.environment, f"{prefix}_REGISTRY_TARGET": target}

    def end(self) -> None:
        """Ends everything."""
        for process in reversed(self.processes):
            process.end()

    def __enter__(self) -> Self:
        """Starts."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Ends."""
        self.end()

    def _process(self, service: str, name: str, target: str, own: Mapping[str, str]) -> ServiceProcess:
        prefix = f"INFERWAY_{service.upper()}_"
        values = {
            "GRPC_ADDRESS": target,
            "METRICS_ADDRESS": "",
            "DATA_DIR": str(self.directory / name),
            "DRAIN_SECONDS": "0.2",
            "GRACE_SECONDS": "3",
            "SAMPLING_RATIO": "0",
            **own,
        }
        if service == "inference":
            values["WARMUP_SECONDS"] = "0.2"  # tests measure nothing
        environment = {prefix + key: value for key, value in values.items()}
        log = self.directory / "logs" / f"{name}.log"
        return ServiceProcess(f"inferway_{service}", target, {**environment, **self.settings.get(service, {})}, log)
