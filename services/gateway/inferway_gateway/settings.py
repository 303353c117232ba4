"""Settings of a gateway process."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from inferway_chassis.addresses import split_address
from inferway_chassis.settings import MIB, ServiceSettings
from inferway_chassis.transport import Transport

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]


class GatewaySettings(ServiceSettings):
    """What a gateway can be told."""

    model_config = SettingsConfigDict(env_prefix="INFERWAY_GATEWAY_")

    grpc_address: str = "127.0.0.1:8001"
    """`host:port` for predictions by gRPC: the Open Inference Protocol and inferway's own service."""
    http_address: str = "127.0.0.1:8000"
    """`host:port` for HTTP: health today, REST later; empty turns it off."""
    metrics_address: str = "127.0.0.1:8002"
    """`host:port` of the Prometheus metrics; empty turns them off."""
    transport: Transport = Transport.GRPCIO
    """What carries gRPC: `grpcio`, or `native` (the extra of that name), which is quicker at plaintext unary calls."""
    processes: Count = 1
    """Processes that share the port and the work; more than one where one core is not enough for the gateway."""
    share_port: bool = False
    """Let another gateway listen on the same ports, so that a successor is ready before this one leaves."""
    registry_target: str = "127.0.0.1:8010"
    """`host:port` of the registry whose routing this gateway follows."""
    default_timeout_seconds: Positive = 10.0
    """Time for a request whose caller set no deadline."""
    max_timeout_seconds: Positive = 60.0
    """Most time for any request, whatever deadline its caller set."""
    queue_max_requests: Count = 4096
    """Requests that may wait for one version; more are refused with QUEUE_FULL."""
    queue_max_rows: Count = 65536
    """Rows that may wait for one version."""
    queue_max_bytes: Count = 512 * MIB
    """Bytes of inputs that may wait for one version."""
    tenant_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Shares of tenants whose requests wait: `{"gold": 4}` gives gold four times the rows of any that is not named."""
    memory_limit_bytes: Annotated[int, Field(ge=0)] = 0
    """Memory of this process, at 85 % of which it refuses what can be shed and at 95 % everything; 0 means what the
    container has, if it has a limit."""
    max_held_bytes: Count = 128 * MIB
    """Bytes of large inputs that are held at once, waiting or on their way; they take several times that in memory. As
    many may belong to items of sessions and sequences that wait for their turn."""
    links_per_worker: Count = 1
    """Connections to each worker; one carries some 4,000 messages a second."""
    max_streams: Count = 16_384
    """StreamPredict calls open at once."""
    max_stream_in_flight: Count = 32
    """Items in flight at once on one stream."""
    stream_heartbeat_seconds: Positive = 5.0
    """A stream on which nothing else was sent for so long gets a sign of life."""
    stream_idle_seconds: Annotated[float, Field(ge=0)] = 300.0
    """A stream on which nothing comes and goes for so long is asked to end; 0 never."""
    stream_max_age_seconds: Annotated[float, Field(ge=0)] = 3600.0
    """A stream that is so old is asked to end, so that streams spread over gateways again; 0 never."""
    max_sessions: Count = 10_000
    """Sessions of stateful models that are kept in memory, whether their clients are connected or may come back."""
    session_store: SecretStr = SecretStr("memory")
    """Where sessions are kept: `memory`, or a Redis that gateways share, for example rediss://:password@host:6379/0."""
    session_grace_seconds: Positive = 60.0
    """How long a session waits for its client after its stream was lost."""
    max_sequences: Count = 4096
    """Sequences in Triton's form at once; each counts as a session, too."""
    sequence_idle_seconds: Positive = 60.0
    """A sequence for which no request came for so long is forgotten."""

    @field_validator("http_address", "registry_target")
    @classmethod
    def _has_port(cls, address: str) -> str:
        if address and split_address(address) is None:
            raise ValueError(f"{address!r} is not of the form host:port")
        return address
