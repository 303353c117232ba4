"""The channel to a server, or to several that do the same, and the one place where gRPC's errors become ours.

A status of inferway carries its error in the details. Any other status comes from gRPC itself or from something in
between; `BY_STATUS_CODE` says what that means, and a test fails on a code that it lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import grpc
from google.rpc.status_pb2 import Status

from inferway.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InferwayError,
    Internal,
    InvalidRequest,
    NotFound,
    NotSupported,
    OutOfRange,
    Overloaded,
    Unreachable,
)
from inferway.status import from_status

__all__ = ["BY_STATUS_CODE", "STATUS_DETAILS", "decode_error", "open_channel", "translated_errors"]

STATUS_DETAILS = "grpc-status-details-bin"
"""Trailing metadata that holds a serialised google.rpc.Status."""
PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata that says when a call may be repeated; negative means never (gRFC A6)."""
SPREAD = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "inferway.prediction.v1.PredictionService"},
}
"""Calls go in turn to those that are connected and say that they serve: one that is leaving says so before it goes."""

BY_STATUS_CODE: dict[grpc.StatusCode, type[InferwayError]] = {
    grpc.StatusCode.CANCELLED: Unreachable,  # by a server that closed just then: what callers cancel raises no status
    grpc.StatusCode.UNKNOWN: Internal,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: NotSupported,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DATA_LOSS: Internal,
}
"""The meaning of each code when its status carries no details of ours."""


def open_channel(
    target: str, max_message_bytes: int, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """Opens a channel that notices a dead peer within half a minute and redials it twice a second.

    With several addresses, separated by commas, calls go round those that serve. These must be IP addresses, all of one
    family; of a name, write `dns:///name:port` to go round all addresses that it has. Raises ValueError.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if "," in target:
        target = _listed(target.split(","))
    if target.startswith(("ipv4:", "ipv6:", "dns:")):
        options.append(("grpc.service_config", json.dumps(SPREAD)))
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


def _listed(addresses: list[str]) -> str:
    """In the form in which gRPC takes several addresses."""
    try:
        families = {f"ipv{ip_address(address.rpartition(':')[0].strip(' []')).version}" for address in addresses}
    except ValueError as error:
        raise ValueError(f"several addresses are IP addresses with ports: {error}") from None
    if len(families) > 1:
        raise ValueError("several addresses must be all of IPv4, or all of IPv6")
    return f"{families.pop()}:{','.join(address.strip() for address in addresses)}"


@contextmanager
def translated_errors(target: str) -> Iterator[None]:
    """Raises the InferwayError of any call to `target` that fails inside."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise decode_error(error, target) from error


def decode_error(error: grpc.aio.AioRpcError, target: str) -> InferwayError:
    """Returns the error that a failed call to `target` stands for; what it says by pushback of retries holds."""
    trailing = dict(error.trailing_metadata() or ())
    details = trailing.get(STATUS_DETAILS)
    decoded = from_status(Status.FromString(details)) if isinstance(details, bytes) else _error_of_code(error, target)
    pushback = trailing.get(PUSHBACK)
    if pushback is not None:
        decoded.retry_after_seconds = _seconds(str(pushback))
    return decoded


def _error_of_code(error: grpc.aio.AioRpcError, target: str) -> InferwayError:
    """For statuses that are not ours. Only a lost connection can be worth another attempt; see RetryPolicy."""
    kind = BY_STATUS_CODE[error.code()]
    text = error.details() or error.code().name
    if kind is Unreachable:
        cause = text.rpartition(": ")[2].rstrip("]")
        return Unreachable(f"cannot reach {target}: {cause}", retry_after_seconds=0.0, target=target)
    if kind is DeadlineExceeded:
        return DeadlineExceeded(f"{target} did not answer in time", stage="client")
    if kind is Overloaded:
        text = f"the message is over the limit of {target}, 64 MiB by default: {text}"
    decoded = kind(text)
    decoded.retry_after_seconds = None
    return decoded


def _seconds(pushback: str) -> float | None:
    """None for never, which is also what cannot be understood (gRFC A6)."""
    return int(pushback) / 1000 if pushback.isdecimal() else None
