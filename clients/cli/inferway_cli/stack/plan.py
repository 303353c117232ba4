"""Which processes make a stack, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass

from inferway_cli.data_directory import DataDirectory
from inferway_cli.stack.ports import Ports, address

DRAIN_SECONDS = "0.2"
GRACE_SECONDS = "2"


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process that `inferway up` runs."""

    name: str
    """For example `worker-0`."""
    module: str
    """What Python runs with -m."""
    target: str
    """`host:port` of its gRPC server, whose health says that it serves."""
    environment: dict[str, str]
    """Its settings, beside those that the user has exported."""


def plan_stack(ports: Ports, workers: int, data: DataDirectory, otlp_target: str) -> list[ProcessPlan]:
    """Registry, workers and gateway, in the order of their start."""
    registry = _plan("registry", "registry", ports.registry, ports.registry_metrics, data, otlp_target, {})
    target = {"REGISTRY_TARGET": registry.target}
    fleet = [
        _plan(
            f"worker-{index}",
            "inference",
            ports.worker + index,
            ports.worker_metrics + index,
            data,
            otlp_target,
            {**target, "WORKER": f"worker-{index}"},
        )
        for index in range(workers)
    ]
    doors = {**target, "HTTP_ADDRESS": address(ports.http)}
    return [registry, *fleet, _plan("gateway", "gateway", ports.grpc, ports.metrics, data, otlp_target, doors)]


def _plan(
    name: str, service: str, port: int, metrics: int, data: DataDirectory, otlp_target: str, own: dict[str, str]
) -> ProcessPlan:
    settings = {
        "GRPC_ADDRESS": address(port),
        "METRICS_ADDRESS": address(metrics),
        "DATA_DIR": str(data.of(name)),
        "OTLP_ENDPOINT": otlp_target,
        "DRAIN_SECONDS": DRAIN_SECONDS,
        "GRACE_SECONDS": GRACE_SECONDS,
        **own,
    }
    prefix = f"INFERWAY_{service.upper()}_"
    environment = {prefix + key: value for key, value in settings.items()}
    return ProcessPlan(name, f"inferway_{service}", address(port), environment)
