"""What carries gRPC below a server: one seam, two transports.

`grpcio` is the reference and serves everything. `native` (pygrpc-native, an optional package) answers plaintext unary
calls outside the GIL, and hands every other kind of call to a grpcio server behind it. What differs is listed in
docs/adr/0009-native-transport.md; dropping it is deleting this file's second half.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, cast

from grpc import aio

from inferway_chassis.addresses import SettingsRefused

IO_THREADS = 1
"""Of the native transport: a second one brought nothing on two cores."""
_LONGEST_SECONDS = 1e9
"""The native transport says that a call without a deadline has more time left than this."""


class Transport(StrEnum):
    """The transports that there are."""

    GRPCIO = "grpcio"
    NATIVE = "native"


def open_server(transport: Transport, options: Sequence[tuple[str, int]]) -> aio.Server:
    """A server of that transport; raises SettingsRefused if its package is missing."""
    if transport is Transport.GRPCIO:
        return aio.server(options=options)
    try:
        from pygrpc_native.aio import Server  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        message = "the transport `native` needs the package pygrpc-native: install the extra `native`"
        raise SettingsRefused(message) from error
    return Server(options=options, io_threads=IO_THREADS)


def seconds_left(context: aio.ServicerContext[Any, Any]) -> float | None:
    """Until the caller's deadline; None if it set none."""
    seconds = cast("float | None", context.time_remaining())  # grpcio says None, whatever its types say
    return None if seconds is None or seconds > _LONGEST_SECONDS else seconds
