"""Settings of a worker."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from inferway.errors import InvalidName
from inferway.names import check_segment, worker_name
from inferway_chassis.settings import MIB, Seconds, ServiceSettings
from inferway_inference.worker import Identity

_ANY_HOST = ("0.0.0.0", "[::]")  # noqa: S104 - recognised, not bound


class InferenceSettings(ServiceSettings):
    """Settings of a worker; environment names begin with INFERWAY_INFERENCE_."""

    model_config = SettingsConfigDict(env_prefix="INFERWAY_INFERENCE_")

    grpc_address: str = "127.0.0.1:8020"
    """`host:port` of the gRPC server, which gateways dial."""
    metrics_address: str = "127.0.0.1:8030"
    """`host:port` of the Prometheus metrics; empty turns them off."""
    data_dir: Path = Path("inferway-data/inference")
    """Where the last snapshot and the files of versions are kept. One worker, one folder."""
    registry_target: str = "127.0.0.1:8010"
    """`host:port` of the registry."""
    worker: str = ""
    """Name of the worker, unique in the fleet; by default host name and port."""
    advertised_address: str = ""
    """`host:port` that gateways shall dial; by default the address that the server is bound to."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Workers that share labels are a pool."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads that one operation of a model may use; 0 lets warm-up find out what is best."""
    device: str = "cpu"
    """Where versions compute: `cpu`, or `gpu:N` for the N-th GPU."""
    gpu_memory_growth: bool = True
    """GPU memory is taken as it is needed, not at once."""
    xla: bool = False
    """TensorFlow compiles what it computes, for each shape."""
    warmup_seconds: Annotated[float, Field(ge=0)] = 2.0
    """How long a version that is being loaded may compare ways of running it; 0 turns that off."""
    spare_processes: bool = True
    """Keep one process with the framework imported for the next load, once a version of that runtime was loaded."""
    memory_limit_bytes: Annotated[int, Field(ge=0)] = 0
    """What the worker and its processes may take together; 0 means what the machine or the container has."""
    memory_reserve_bytes: Annotated[int, Field(ge=0)] = 256 * MIB
    """Memory that no version may be loaded into."""
    max_loaded_versions: Annotated[int, Field(gt=0)] = 64
    """Versions that are loaded at the same time; more wait as PENDING."""
    max_parallel_loads: Annotated[int, Field(gt=0)] = 2
    """Versions being loaded at the same time."""
    load_timeout_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How long a version may take to load and warm up, without the download."""
    unload_delay_seconds: Seconds = 1.0
    """How long a version still answers after it is no longer wanted, until every gateway has heard of it."""
    hold_seconds: Seconds = 600.0
    """How long at most a version is kept after it is no longer wanted because streams go on with it."""
    max_batch_rows: Annotated[int, Field(gt=0)] = 512
    """Rows that are computed together at most, where a version does not say otherwise."""
    max_compute_seconds: Annotated[float, Field(gt=0)] = 60.0
    """A process that takes longer for one batch is ended and started anew."""
    max_queue_requests: Annotated[int, Field(gt=0)] = 4096
    """Requests of one version that wait in the worker at most."""
    max_queue_bytes: Annotated[int, Field(gt=0)] = 512 * MIB
    """Bytes of inputs of one version that wait in the worker at most."""
    tenant_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Shares of tenants whose requests wait: `{"gold": 4}` gives gold four times the rows of any that is not named."""
    default_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Deadline of requests that come without one."""
    max_link_envelope_bytes: Annotated[int, Field(gt=0)] = MIB
    """Larger requests are sent by a call of their own, so that small ones do not wait behind them."""
    runtimes: dict[str, str] = Field(default_factory=dict)
    """Runtimes to replace, for tests and trials: `{"tensorflow": "fake"}`."""

    @field_validator("worker")
    @classmethod
    def _worker_is_a_name(cls, worker: str) -> str:
        try:
            return check_segment(worker, "worker") if worker else ""
        except InvalidName as error:
            raise ValueError(error.message) from error

    def identity(self, boot_id: str) -> Identity:
        """Who the worker is. Without a name or a port in the settings its name is new with every start."""
        host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:40] or "worker"
        port = self.grpc_address.rpartition(":")[2]
        segment = self.worker or f"{host}-{boot_id[:8] if port == '0' else port}"
        return Identity(worker_name(segment), boot_id, tuple(sorted(self.labels.items())))

    def address_to_dial(self, port: int) -> str:
        """What gateways shall dial, given the port that was bound."""
        host = self.grpc_address.rpartition(":")[0]
        return self.advertised_address or f"{socket.gethostname() if host in _ANY_HOST else host}:{port}"
