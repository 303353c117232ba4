"""Where the services are: options and environment variables that every command shares."""

from __future__ import annotations

from typing import Annotated

import typer

from inferway_client.timeouts import bounded

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

DEFAULT_GATEWAY = "127.0.0.1:8001"
DEFAULT_REGISTRY = "127.0.0.1:8010"

GatewayOption = Annotated[
    str, typer.Option("--gateway", envvar="INFERWAY_GATEWAY", metavar="HOST:PORT", help="Where the gateway is.")
]
RegistryOption = Annotated[
    str, typer.Option("--registry", envvar="INFERWAY_REGISTRY", metavar="HOST:PORT", help="Where the registry is.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.001, callback=bounded, help="Seconds to wait, a day at most.")
]


def parse_version(text: str | None) -> int | str | None:
    """A version as typed: digits are a number, anything else an alias."""
    return int(text) if text is not None and text.isdecimal() else text
