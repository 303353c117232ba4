"""How things stand: status, trace, version."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated, Any

import typer

from inferway.errors import InferwayError
from inferway_cli.addresses import (
    DEFAULT_GATEWAY,
    DEFAULT_REGISTRY,
    GatewayOption,
    RegistryOption,
)
from inferway_cli.console import CommandError, JsonFlag, out, print_json, print_table, report, run
from inferway_cli.data_directory import DataDirectory, DataDirOption
from inferway_cli.health import check
from inferway_cli.registry import Registry
from inferway_cli.traces.show import trace_dicts, trace_lines
from inferway_cli.traces.store import TraceStore
from inferway_cli.traces.tree import build
from inferway_cli.views import endpoint_row, pairs, worker_row

HEALTH_SECONDS = 3.0
SERVING = "SERVING"


def show_status(
    gateway: GatewayOption = DEFAULT_GATEWAY, registry: RegistryOption = DEFAULT_REGISTRY, as_json: JsonFlag = False
) -> None:
    """Show services, workers and endpoints. Exits with 1 if anything does not serve.

    Examples:
        inferway status
    """
    status = run(_status(gateway, registry))
    if as_json:
        print_json(status)
    else:
        _print_status(status)
    if any(service["health"] != SERVING for service in status["services"]):
        raise typer.Exit(1)


def show_trace(
    trace_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="32 hexadecimal digits; the newest if left out.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a trace that `inferway up` has received, as a tree of hops.

    Examples:
        inferway predict digits --trace
        inferway trace 0af7651916cd43dd8448eb211c80319c
    """
    path = DataDirectory.choose(data_dir).traces
    if not path.exists():
        raise CommandError(f"no traces yet: none in {path.parent}; --data-dir names the directory of `inferway up`")
    with TraceStore(path) as store:
        wanted = trace_id.lower() if trace_id else store.latest()
        roots = build(wanted, store.related(wanted)) if wanted else []
    if not wanted:
        raise CommandError("no traces yet: `inferway predict NAME --trace` makes one")
    if not roots:
        raise CommandError(f"no trace {wanted} here; it may be too old, or was not sampled")
    if as_json:
        print_json({"trace_id": wanted, "hops": trace_dicts(roots)})
        return
    out.print(f"trace {wanted}", markup=False)
    for line in trace_lines(roots):
        out.print(line, markup=False)


def show_version(as_json: JsonFlag = False) -> None:
    """Show the versions of inferway and of what it stands on.

    Examples:
        inferway version
    """
    versions = {name: distribution_version(name) for name in ("inferway", "grpcio", "protobuf")}
    versions["python"] = sys.version.split()[0]
    if as_json:
        print_json(versions)
        return
    for name, version in versions.items():
        out.print(f"{name} {version}")


async def _status(gateway: str, registry: str) -> dict[str, Any]:
    services, fleet = await asyncio.gather(
        asyncio.gather(_health("gateway", gateway), _health("registry", registry)), _fleet(registry)
    )
    workers = await asyncio.gather(*(_health(worker["worker"], worker["address"]) for worker in fleet["workers"]))
    return {"services": [*services, *workers], **fleet}


async def _health(service: str, target: str) -> dict[str, str]:
    try:
        health = await check(target, HEALTH_SECONDS)
    except InferwayError as error:
        health = error.reason or error.code
    return {"service": service, "address": target, "health": health}


async def _fleet(target: str) -> dict[str, Any]:
    try:
        async with Registry(target) as registry:
            workers, endpoints = await asyncio.gather(registry.workers(), registry.endpoints())
    except InferwayError as error:
        return {"workers": [], "endpoints": [], "problem": error.message}
    return {"workers": [worker_row(worker) for worker in workers], "endpoints": [endpoint_row(e) for e in endpoints]}


def _print_status(status: dict[str, Any]) -> None:
    print_table("services", ("service", "address", "health"), status["services"], "")
    if "problem" in status:
        report(status["problem"])
        return
    workers = [{**row, "versions": pairs(row["versions"])} for row in status["workers"]]
    print_table("\nworkers", ("worker", "state", "versions"), workers, "no workers")
    endpoints = [
        {**row, "traffic": pairs(row["arms"]), "split": row["split"] and row["split"]["verdict"]}
        for row in status["endpoints"]
    ]
    is_split = any(row["split"] for row in endpoints)
    columns = ("endpoint", "traffic", *(("split",) if is_split else ()), "next", "rollout")
    print_table("\nendpoints", columns, endpoints, "no endpoints: `inferway push NAME PATH`")
