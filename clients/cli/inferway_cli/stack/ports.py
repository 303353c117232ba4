"""The ports of a stack, and whether they are free."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Self

import typer

from inferway_cli.console import CommandError

LOOPBACK = "127.0.0.1"
MAX_WORKERS = 10
"""As many as fit between the first worker's port and the first worker's metrics port."""
LARGEST = 65_535


@dataclass(frozen=True, slots=True)
class Claim:
    """A port that somebody is going to listen on."""

    port: int
    purpose: str
    option: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens; those of worker i are `i` higher."""

    grpc: int = 8001
    http: int = 8000
    metrics: int = 8002
    registry: int = 8010
    registry_metrics: int = 8011
    worker: int = 8020
    worker_metrics: int = 8030
    otlp: int = 4317

    def shifted(self, offset: int) -> Self:
        """All ports, `offset` higher."""
        return replace(self, **{field.name: getattr(self, field.name) + offset for field in fields(self)})

    def claims(self, workers: int) -> list[Claim]:
        """What a stack of so many workers needs; the OTLP port is left out, because any other does as well."""
        claims = [
            Claim(self.http, "gateway HTTP", "--http-port"),
            Claim(self.grpc, "gateway gRPC", "--grpc-port"),
            Claim(self.metrics, "gateway metrics", "--metrics-port"),
            Claim(self.registry, "registry", "--registry-port"),
            Claim(self.registry_metrics, "registry metrics", "--registry-metrics-port"),
        ]
        for index in range(workers):
            claims.append(Claim(self.worker + index, f"worker {index}", "--worker-port"))
            claims.append(Claim(self.worker_metrics + index, f"worker {index} metrics", "--worker-metrics-port"))
        return claims


def check_usable(claims: Iterable[Claim]) -> None:
    """Raises typer.BadParameter naming each port that is none or is wanted twice, and the option that says so."""
    listed = list(claims)
    counts = Counter(claim.port for claim in listed)
    wrong = [(claim, "is no port") for claim in listed if not 0 < claim.port <= LARGEST]
    twice = [(claim, "is wanted twice") for claim in listed if counts[claim.port] > 1]
    if wrong or twice:
        raise typer.BadParameter(", ".join(f"{_described(claim)} {problem}" for claim, problem in wrong or twice))


def check_free(claims: Iterable[Claim], offset: int = 0) -> None:
    """Raises CommandError naming each port that is taken, what for, and the option to change it.

    `offset` is what all ports were moved by already.
    """
    taken = [_described(claim) for claim in claims if not _is_free(claim.port)]
    if taken:
        ports, verb, them = ("port", "is", "it") if len(taken) == 1 else ("ports", "are", "them")
        raise CommandError(
            f"{ports} {', '.join(taken)} {verb} taken; stop what uses {them} (another `inferway up`?), "
            f"or move all ports with --port-offset {offset + 100}"
        )


def address(port: int) -> str:
    """`host:port` on loopback."""
    return f"{LOOPBACK}:{port}"


def _described(claim: Claim) -> str:
    return f"{claim.port} ({claim.purpose}, {claim.option})"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True
