"""What carries gRPC below a server: one seam, two transports.

`grpcio` is the reference and serves everything. `native` (pygrpc-native, an optional package) answers plaintext unary
calls outside the GIL, and hands every other kind of call to a grpcio server behind it. What differs is listed in
docs/adr/0009-native-transport.md; dropping it is deleting `native.py` and what `server.py` does with it.
"""

from __future__ import annotations

from enum import StrEnum

from inferway_chassis.observing import Head

_LONGEST_SECONDS = 1e9
"""grpcio, too, has a way to say that there is no deadline: more time than this."""


class Transport(StrEnum):
    """The transports that there are."""

    GRPCIO = "grpcio"
    NATIVE = "native"


def seconds_left(call: Head) -> float | None:
    """Until the caller's deadline; None if it set none."""
    seconds = call.time_remaining()
    return None if seconds is None or seconds > _LONGEST_SECONDS else seconds
