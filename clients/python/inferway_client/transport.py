"""The channel to a server, and the one place where gRPC's errors become ours.

A status of inferway carries its error in the details. Any other status comes from gRPC itself or from something in
between; `BY_STATUS_CODE` says what that means, and a test fails on a code that it lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.rpc.status_pb2 import Status

from inferway.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
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

BY_STATUS_CODE: dict[grpc.StatusCode, type[InferwayError]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
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
    """Opens a channel that notices a dead peer within half a minute and redials it every two seconds."""
    options = [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, credentials, options)


@contextmanager
def translated_errors(target: str) -> Iterator[None]:
    """Raises the InferwayError of any call to `target` that fails inside."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise decode_error(error, target) from error


def decode_error(error: grpc.aio.AioRpcError, target: str) -> InferwayError:
    """Returns the error that a failed call to `target` stands for."""
    details = _details(error)
    if details is not None:
        return from_status(details)
    kind = BY_STATUS_CODE[error.code()]
    text = error.details() or error.code().name
    if kind is Unreachable:
        return _without_retry(
            Unreachable(f"cannot reach {target}: {text.rpartition(': ')[2].rstrip(']')}", target=target)
        )
    if kind is DeadlineExceeded:
        return DeadlineExceeded(f"{target} did not answer in time", stage="client")
    if kind is Overloaded:
        return _without_retry(
            Overloaded(f"the message is over the limit of {target}, 64 MiB by default: {text}", target=target)
        )
    return _without_retry(kind(text))


def _details(error: grpc.aio.AioRpcError) -> Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return Status.FromString(value)
    return None


def _without_retry(error: InferwayError) -> InferwayError:
    """Only a server of ours knows that repeating is safe; a lost connection may have lost an answer."""
    error.retry_after_seconds = None
    return error
