"""Addresses to listen on: their form, and who may be let in without encryption."""

from __future__ import annotations

import ipaddress
from typing import Protocol


class SettingsRefused(Exception):
    """The settings cannot be used; the message is one line for each problem, fit for a terminal."""


class AddressTaken(Exception):
    """Another process listens on the address."""


class PlaintextPolicy(Protocol):
    """What decides whether plaintext may leave the machine."""

    @property
    def insecure(self) -> bool:
        """Plaintext is permitted everywhere."""

    @property
    def prefix(self) -> str:
        """Prefix of the environment names, for the message."""


def split_address(address: str) -> tuple[str, int] | None:
    """Host and port of `host:port` or `[v6]:port`; None if it is not of that form."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the largest port
        return None
    return host.strip("[]"), int(port)


def refuse_open_plaintext(address: str, policy: PlaintextPolicy) -> None:
    """Raises SettingsRefused if `address` is reachable from other machines and that was not asked for."""
    if policy.insecure or _is_loopback(address):
        return
    message = (
        f"{address} is not loopback, and the server speaks plaintext: whoever reaches the port can use it. "
        f"Bind 127.0.0.1, or set {policy.prefix}INSECURE=true if the network is trusted"
    )
    raise SettingsRefused(message)


def _is_loopback(address: str) -> bool:
    host = (split_address(address) or ("", 0))[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
